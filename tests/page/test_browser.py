"""The page as a person meets it, in Chromium."""

import shutil

import numpy as np
import pytest
from PIL import Image

from interestyle_jax.data.avatars.world import sample

CHROMIUM = shutil.which("chromium")
# Seconds that anything may take on a machine that does other work too.
PATIENCE = 120


def shown(tab, place: str) -> str:
    """Address of the image in a place of the page."""
    return tab.locator(f"#{place} img").first.get_attribute("src")


def upload(tab, file) -> None:
    tab.set_input_files("#upload input", file)
    tab.locator(f"#upload [aria-label='{file.name}']").wait_for()
    tab.click("#invert")


@pytest.mark.slow
def test_a_person_uploads_edits_and_pastes_back(page, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    url, _ = page
    Image.fromarray(sample(3, split="test", size=256)["image"]).save(tmp_path / "face.png")
    (tmp_path / "text.png").write_text("no image")
    requests, faults = [], []
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 1400, "height": 1500})
        tab.set_default_timeout(1000 * PATIENCE)
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(url)
        upload(tab, tmp_path / "text.png")
        tab.get_by_text("is not an image that is read here").wait_for()
        tab.wait_for_timeout(500)
        tab.screenshot(path=tmp_path / "refused.png")

        tab.goto(url)
        upload(tab, tmp_path / "face.png")
        tab.locator("#result img").wait_for()
        tab.get_by_text("interest mask").first.wait_for()
        captions = tab.locator("#iterations .caption-label").all_inner_texts()
        assert captions == ["image", "interest mask", "ŷ₁", "ŷ₂", "ŷ₃", "ŷ₄", "ŷ₅"]

        before = shown(tab, "result")
        slider = tab.locator("#strength-0 input[type=range]")
        slider.focus()
        slider.press("End")
        tab.wait_for_function(
            "old => document.querySelector('#result img').src !== old", arg=before
        )
        tab.click("#paste")
        tab.locator("#pasted img").wait_for()
        response = tab.request.get(shown(tab, "pasted"))
        (tmp_path / "pasted.png").write_bytes(response.body())
        tab.click("#download")
        tab.locator("#files a").nth(3).wait_for()
        names = [a.get_attribute("download") for a in tab.locator("#files a").all()]
        assert names[3] == "face_pasted.png"
        tab.wait_for_timeout(500)
        tab.screenshot(path=tmp_path / "edited.png")
        browser.close()
    original, pasted = (
        np.array(Image.open(tmp_path / name)).astype(int) for name in ("face.png", "pasted.png")
    )
    # The upload outside of the face, the edit in it.
    changed = np.abs(pasted - original).max(-1) > 0
    assert 0.1 < changed.mean() < 0.7
    assert not changed[:, :4].any() and not changed[:, -4:].any()
    for name in ("refused.png", "edited.png"):
        assert len(np.unique(np.array(Image.open(tmp_path / name)))) > 50
    assert len(requests) > 20
    outside = [r for r in requests if not r.startswith((url, "data:", "blob:"))]
    assert outside == []
    assert faults == []
