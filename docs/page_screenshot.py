"""Draws docs/images/page.png: the page over a library, in a headless Chromium.

uv run omnialign demo --output runs/demo
uv run python -c "from omnialign_scenes import write_folder; write_folder('scenes')"
uv run omnialign index scenes --model runs/demo --to library
uv run python docs/page_screenshot.py library "three large red stars"
"""

import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

import omnialign as oa
from omnialign.serve.app import create_app

PICTURE = Path(__file__).parent / "images" / "page.png"
WIDTH, HEIGHT = 1200, 900
SETTLED = """() => {
  const seen = [...document.querySelectorAll(".card")]
    .filter((card) => card.getBoundingClientRect().top < innerHeight);
  const whole = (card) => card.querySelector("img, audio, video, p")
    && [...card.querySelectorAll("img")].every((image) => image.complete && image.naturalWidth)
    && [...card.querySelectorAll("audio, video")].every((player) => player.readyState > 0);
  return seen.length > 0 && seen.every(whole);
}"""


def main(library: str, words: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no Chromium is installed"
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(oa.Index.open(library))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(240_000)
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}")
        page.wait_for_selector("#modalities label")
        page.fill("#words", words)
        page.keyboard.press("Enter")
        page.wait_for_function(SETTLED)
        page.locator("h1").click()
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE)
        browser.close()
    server.should_exit = True
    thread.join()
    Image.open(PICTURE).convert("RGB").quantize(256).save(PICTURE, optimize=True)
    print(PICTURE, PICTURE.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
