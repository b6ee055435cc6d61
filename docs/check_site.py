"""Looks at every page of the built site in a real browser, as a reader would.

    mkdocs build --strict -d /tmp/site
    python docs/check_site.py /tmp/site --screenshots /tmp/pages

Each page is opened at a desktop's and at a phone's width. Reported are: messages on the
console, requests that fail or leave the site, images that do not load, formulas that are
not typeset, links that lead nowhere, and pages that are wider than the window. The exit
code is 1 if there is any.

It needs `pip install playwright` and a Chromium, say that of the system (`apt install
chromium`); its path is taken from `--chromium` or found.
"""

import argparse
import functools
import http.server
import pathlib
import shutil
import sys
import threading

from playwright.sync_api import Page, sync_playwright


WIDTHS = {"desktop": 1280, "phone": 390}

# What the page itself can say, once all is loaded.
SURVEY = """async () => {
    await document.fonts.ready;
    if (window.MathJax?.startup) await MathJax.startup.promise;
    // Images below the window are loaded when they come near.
    const images = [...document.images];
    images.forEach(i => { i.loading = 'eager'; });
    await Promise.all(images.map(i => i.decode().catch(() => null)));
    const formulas = [...document.querySelectorAll('.arithmatex')];
    // A glyph is text that a style sheet brings: without it a formula is there, and blank.
    const glyphs = f => [...f.querySelectorAll('mjx-c')];
    const drawn = g => getComputedStyle(g, '::before').content !== 'none';
    const shown = f => glyphs(f).length && glyphs(f).every(drawn);
    return {
        ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
        links: [...document.querySelectorAll('a[href]')].map(a => a.href),
        broken: images.filter(i => !i.naturalWidth).map(i => i.src),
        blank: formulas.filter(f => !shown(f)).map(f => f.innerText),
        wrong: [...document.querySelectorAll('mjx-merror')].map(e => e.innerText),
        formulas: formulas.length,
        images: images.length,
        wide: document.documentElement.scrollWidth - window.innerWidth,
    };
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=pathlib.Path, help="the folder that mkdocs built")
    parser.add_argument("--screenshots", type=pathlib.Path, help="a folder for pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    handler = functools.partial(Quiet, directory=options.site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}/"
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        for name, width in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": 900})
            faults += _look(page, options.site, root, name, options.screenshots)
        browser.close()
    server.shutdown()
    print("\n".join(faults) or "nothing amiss")
    return int(bool(faults))


def _look(
    page: Page, site: pathlib.Path, root: str, name: str, pictures: pathlib.Path | None
) -> list[str]:
    """The faults of all pages at one width."""
    faults: list[str] = []
    here = ""
    say = lambda text: faults.append(f"{name}, {here}: {text}")
    page.on("console", lambda m: say(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: say(f"error: {e}"))
    page.on("requestfailed", lambda r: say(f"failed: {r.url}"))
    page.on("response", lambda r: r.status >= 400 and say(f"{r.status}: {r.url}"))
    page.on("request", lambda r: _inside(r.url, root) or say(f"leaves the site: {r.url}"))
    files = sorted(site.rglob("*.html"))
    surveys = {}
    for file in files:
        here = str(file.relative_to(site))
        page.goto(root + here, wait_until="load")
        surveys[here] = found = page.evaluate(SURVEY)
        for kind in ("broken", "blank", "wrong"):
            for what in found[kind]:
                say(f"{kind}: {what}")
        if found["wide"] > 0:
            say(f"wider than the window by {found['wide']} pixels")
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            picture = here.removesuffix(".html").replace("/", "_")
            page.screenshot(path=pictures / f"{picture}-{name}.png", full_page=True)
    for file, found in surveys.items():
        here = file
        for link in sorted(set(found["links"])):
            if link.startswith(root) and not _leads(link, root, site, surveys):
                say(f"broken link: {link.removeprefix(root)}")
    total = lambda kind: sum(survey[kind] for survey in surveys.values())
    print(f"{name}: {len(files)} pages with {total('formulas')} formulas and", end=" ")
    print(f"{total('images')} images")
    return faults


def _inside(url: str, root: str) -> bool:
    return url.startswith((root, "data:", "blob:"))


def _leads(link: str, root: str, site: pathlib.Path, surveys: dict) -> bool:
    path, _, anchor = link.removeprefix(root).partition("#")
    target = site / path.partition("?")[0]
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    found = surveys.get(str(target.relative_to(site)))
    return not anchor or found is None or anchor in found["ids"]


if __name__ == "__main__":
    sys.exit(main())
