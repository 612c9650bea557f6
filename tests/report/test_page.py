"""The report in a real browser, opened from disk: complete, quiet, and as wide as a phone."""

import base64
import gzip
import io
import os
import shutil

import pandas as pd
import pytest

from repro.figures import draw
from repro.report import build
from repro.storage.runs import read_table, write_table

FIGURES = ("3", "4", "x1")


@pytest.fixture(scope="module")
def page(root, cells):
    for number in FIGURES:
        draw(root, number, cells, "tiny")
    return build(root, {**dict.fromkeys(FIGURES, cells), "15": []})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        if os.environ.get("CI") == "true":
            pytest.fail("chromium and chromedriver are needed to test the report")
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    quiet = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-sync")
    tmp_path = tmp_path_factory.mktemp("browser")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for argument in ("headless", "no-sandbox", *quiet, "disable-component-update", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.downloads = downloads
    yield opened
    opened.quit()


def show(browser, page, width=1200, height=900):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def test_the_page_needs_no_other_file(page):
    html = page.read_text()
    for tag in ("<link rel=stylesheet", 'src="http', "url(", "@import", '<script src="'):
        assert tag not in html
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_images_load_and_the_console_is_quiet(browser, page):
    show(browser, page)
    widths = browser.execute_script("return [...document.images].filter(i => i.src).map(i => i.naturalWidth)")
    assert len(widths) == len(FIGURES) + 1  # the first screen has one of them
    assert min(widths) > 300
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [380, 390, 768, 1200])
def test_nothing_scrolls_sideways(browser, page, width):
    show(browser, page, width)
    found = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert found[0] <= found[1] == width


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1200, 900)])
def test_the_first_screen_has_picture_verdicts_and_cost(browser, page, width, height):
    show(browser, page, width, height)
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().bottom)"
    for part in (".picture img", ".score", ".verdicts", "#first p:nth-of-type(2)"):
        (bottom,) = browser.execute_script(script, part)
        assert 0 < bottom <= height


def test_on_a_phone_claims_are_cards_within_the_screen(browser, page):
    show(browser, page, 390)
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#claims tbody td')].filter(e => e.offsetWidth)"
        ".map(e => [e.getBoundingClientRect().left, e.getBoundingClientRect().right, getComputedStyle(e).display])"
    )
    assert cells
    assert all(left >= 0 and right <= 390 and display == "block" for left, right, display in cells)


def test_a_claim_links_to_its_figure_if_the_experiment_draws_it(page):
    html = page.read_text()
    assert '<a href="#fig03">The training Hessian has outliers beyond its bulk</a>' in html
    assert "<td>Knocking out G_class removes the outliers of G</td>" in html


def test_cautions_name_selected_rates_at_the_edge(root, cells, tmp_path):
    shutil.copytree(root, tmp_path / "tiny")
    runs = read_table(root / "runs.csv")
    write_table(tmp_path / "tiny" / "selected.csv", runs[runs.lr_index == 3])
    html = build(tmp_path / "tiny", {"x1": cells}, ["a caution of the caller"]).read_text()
    assert html.count("is the lowest of 4") == len(cells)
    assert "a caution of the caller" in html
    assert "3 cautions" in html


def test_it_works_from_the_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    show(browser, page)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    browser.find_element("css selector", "button.enlarge").send_keys(Keys.ENTER)
    dialog = browser.find_element("css selector", "dialog")
    assert dialog.get_attribute("open") is not None
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert dialog.get_attribute("open") is None


def test_a_click_saves_plain_csv(browser, page):
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, page)
    browser.execute_script("document.querySelector('a[data-csv=\"fig03.csv\"]').click()")
    saved = browser.downloads / "fig03.csv"
    WebDriverWait(browser, 20).until(lambda _: saved.exists() and saved.stat().st_size > 0)
    assert saved.read_text() == (page.parent.parent / "figures" / "fig03.csv").read_text()
    assert list(pd.read_csv(saved).columns) == ["panel", "title", "series", "x", "y", "value"]


def test_a_figure_without_results_says_so_and_the_rest_is_there(page):
    html = page.read_text()
    assert "Not drawn: synthetic_spectra is not measured yet;" in html
    assert html.count("<figcaption>") == len(FIGURES)


def test_every_run_can_be_downloaded(page):
    packed = page.read_text().split('download="runs.csv.gz"')[0].rsplit("base64,", 1)[1].split('"')[0]
    runs = pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(packed))))
    assert len(runs) == 8


def test_built_twice_it_is_the_same(root, cells, page):
    before = page.read_bytes()
    build(root, {**dict.fromkeys(FIGURES, cells), "15": []})
    assert page.read_bytes() == before


def test_an_experiment_that_has_not_run_gives_a_page(tmp_path):
    page = build(tmp_path / "empty", {"3": []})
    assert "has been run yet" in page.read_text()
    assert "not measured" in page.read_text()
