"""The interactive page in headless Chromium: hover, click, keys, slider, colours, a phone, hostile names."""

import shutil

import pytest
import torch

from fastkan import KAN
from fastkan.network.plot import numbers
from fastkan.network.plot.selection import MAX_EDGES, MIN_OPACITY

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium-driver"),
    pytest.mark.xdist_group("browser"),  # one process has it
]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
HOSTILE = "</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, Service(DRIVER))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def models() -> dict[str, KAN]:
    """One with products and formulas, one without hidden nodes, one with hundreds of edges, one without splines."""
    torch.manual_seed(0)
    small = KAN([2, [1, 1], 1], grid=4, seed=3)
    small.get_act(torch.rand(100, 2) * 2 - 1)
    small.fix_symbolic(0, 0, 0, "sin", verbose=False)
    small.get_act()
    flat, large = KAN([6, 1], seed=1), KAN([30, 8, 2], seed=1)
    flat.get_act(torch.randn(100, 6))
    large.get_act(torch.randn(100, 30))
    waves = KAN([2, 1], family="chebyshev")
    waves.get_act(torch.rand(20, 2))
    return {"small": small, "flat": flat, "large": large, "waves": waves}


@pytest.fixture
def open_page(browser, models, tmp_path):
    """Opens the page of a model in a window of a width and height in pixels, dark or light."""

    def opened(name: str, size=(1200, 800), dark=False, **options):
        path = tmp_path / "page.html"
        models[name].to_html(path, **options)
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(path.as_uri())
        return browser

    yield opened
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def edges(browser) -> list:
    return browser.find_elements(By.CSS_SELECTOR, ".edge")


def panel(browser) -> str:
    return browser.find_element(By.ID, "detail").text


def count(browser) -> str:
    return browser.find_element(By.ID, "count").text


def test_hover_shows_the_edge_and_leaving_hides_it(open_page):
    page = open_page("small", in_vars=["left", "right"], out_vars=["y"])
    assert panel(page).startswith("Hover, tap or tab") and len(edges(page)) == 2 * 3 + 2
    ActionChains(page).move_to_element(edges(page)[0]).perform()
    assert panel(page).startswith("left → node 1 of layer 1")
    for text in ("sin(", "score", "input", "output"):
        assert text in panel(page)
    assert page.find_elements(By.CSS_SELECTOR, "#detail svg path.plot")
    ActionChains(page).move_to_element(page.find_element(By.ID, "title")).perform()
    assert panel(page).startswith("Hover, tap or tab")


def test_a_click_keeps_the_edge_until_escape(open_page):
    page = open_page("small")
    edges(page)[1].click()
    kept = panel(page)
    assert page.find_element(By.CSS_SELECTOR, "#detail button").get_attribute("aria-label") == "Let this edge go"
    ActionChains(page).move_to_element(edges(page)[4]).perform()
    assert panel(page) != kept
    ActionChains(page).move_to_element(page.find_element(By.ID, "title")).perform()
    assert panel(page) == kept and edges(page)[1].get_attribute("aria-pressed") == "true"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert panel(page).startswith("Hover, tap") and edges(page)[1].get_attribute("aria-pressed") == "false"


def test_every_edge_is_reached_by_keys(open_page):
    page = open_page("small")
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.get_attribute("id") == "cut"
    ActionChains(page).send_keys(Keys.TAB).perform()
    reached = set()
    for key in [*[Keys.ARROW_RIGHT] * 6, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT]:
        here = page.switch_to.active_element
        reached.add(here.get_attribute("aria-label"))
        assert here.get_attribute("class").startswith("edge") and "score" in panel(page)
        assert here.get_attribute("tabindex") == "0"
        rect = here.find_element(By.TAG_NAME, "rect")
        assert float(rect.value_of_css_property("stroke-width").removesuffix("px")) == 4  # the focus shows
        ActionChains(page).send_keys(key).perform()
    assert len(reached) == len(edges(page)) and all(label.startswith("Edge ") for label in reached)
    ActionChains(page).send_keys(Keys.ENTER).perform()
    assert page.find_element(By.CSS_SELECTOR, ".edge[aria-pressed=true]")


def test_the_slider_prunes_as_the_model_does(open_page, models):
    page, model = open_page("flat"), models["flat"]
    assert count(page) == "6 of 6 edges, 7 of 7 nodes"
    slider = page.find_element(By.ID, "cut")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    threshold = float(count(page).split()[2].removesuffix(":"))
    pruned = model.copy()
    pruned.prune_edge(threshold)
    assert count(page).endswith(f": {pruned.n_edge} of 6 edges, {pruned.n_edge + 1} of 7 nodes")
    assert len(page.find_elements(By.CSS_SELECTOR, ".edge.off[aria-hidden=true]")) == 6 - pruned.n_edge == 2
    assert slider.get_attribute("aria-valuetext") == count(page)
    slider.send_keys(Keys.END)
    assert ": 1 of 6 edges, 2 of 7 nodes" in count(page)
    slider.send_keys(Keys.HOME)
    assert count(page) == "6 of 6 edges, 7 of 7 nodes"


def test_idle_edges_after_pruning_fade_too(open_page):
    page = open_page("large")
    slider = page.find_element(By.ID, "cut")
    slider.send_keys(Keys.END)
    # the strongest edge alone leads from no input to an output, or to it from no other
    assert ": 0 of 256 edges" in count(page) and not page.find_elements(By.CSS_SELECTOR, ".edge:not(.off)")


def test_the_strongest_edges_are_shown_first_and_all_on_request(open_page, models):
    page = open_page("large")
    label = page.find_element(By.CSS_SELECTOR, "label[for=all], #more")
    assert label.text == "all 256 edges, not only the 86 strongest: up to 70 of each layer"
    data = page.execute_script("return data.edges.map((e) => [e.layer, e.score])")
    assert len(edges(page)) == MAX_EDGES + 16
    least = sorted((score for layer, score in data if layer == 0), reverse=True)[MAX_EDGES - 1]
    shown = page.execute_script("return Object.keys(drawn.edges).map((k) => [edges[k].layer, edges[k].score])")
    assert all(score >= least for layer, score in shown if layer == 0)
    inputs = page.execute_script("return joined()[0].length")
    assert len(page.find_elements(By.CSS_SELECTOR, "#network .node.dot")) == inputs < 30
    page.find_element(By.ID, "all").send_keys(Keys.SPACE)
    assert len(edges(page)) == 256 and len(page.find_elements(By.CSS_SELECTOR, "#network .node.dot")) == 30
    edges(page)[255].send_keys(Keys.ENTER)
    page.find_element(By.ID, "all").send_keys(Keys.SPACE)
    assert len(edges(page)) == 86
    assert not open_page("small").find_element(By.ID, "more").is_displayed()


def test_the_legend_and_the_scale_of_curves(open_page):
    page = open_page("small", in_vars=["left", "right"])
    legend = page.find_element(By.ID, "legend").text
    for text in ("score ≤", "spline", "formula", "input", "sum", "product", "height of a curve", "[a, b]"):
        assert text in legend
    low, high = page.execute_script("return [edges[0].low, edges[0].high]")
    height = edges(page)[0].find_element(By.CSS_SELECTOR, "text.scale").text
    assert float(height.removeprefix("↕ ")) == pytest.approx(high - low, rel=0.05)
    ends = page.execute_script("return [edges[0].from_x, edges[0].to_x]")
    node = page.find_element(By.CSS_SELECTOR, "#network .node.dot")
    said = node.get_attribute("aria-label")
    assert said.startswith("input left, range [")
    assert [float(n) for n in said.split("[")[1].rstrip("]").split(", ")] == pytest.approx(ends, abs=0.2)
    assert node.find_element(By.CSS_SELECTOR, "text.scale").text in said
    strength = "return Math.min(...drawn.edges.map((e) => Number(e.style.getPropertyValue('--strength'))))"
    assert page.execute_script(strength) >= MIN_OPACITY
    legend = open_page("waves").find_element(By.ID, "legend").text
    assert "numeric" in legend and "spline" not in legend and "product" not in legend


def test_numbers_on_the_page_are_those_of_the_diagram(open_page):
    page = open_page("small")
    for low, high in (
        (-1, 1),
        (0.2578, 0.2612),
        (1000, 1049),
        (3e-7, 1e-4),
        (1, 1 + 1e-9),
        (2, 2),
        (1e7, 3e7),
        (-2.5e-4, 460),
    ):
        assert page.execute_script("return bounds(...arguments)", low, high) == list(numbers.ends(low, high))


def test_names_run_no_script(open_page):
    page = open_page("small", in_vars=[HOSTILE, "b"], out_vars=[HOSTILE], title=HOSTILE)
    edges(page)[0].click()
    assert page.execute_script("return [window.hacked, document.images.length]") == [None, 0]
    assert page.find_element(By.ID, "title").text == HOSTILE == page.title
    assert HOSTILE in panel(page)


def test_page_loads_nothing(open_page):
    page = open_page("small")
    assert page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)") in ([], ["data:,"])


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", as in WCAG 2.1."""
    parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_read_on_its_ground(open_page, dark):
    page = open_page("small", dark=dark)
    edges(page)[0].click()
    ground = luminance(page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))
    assert (ground < 0.1) == dark
    card = luminance(page.find_element(By.ID, "detail").value_of_css_property("background-color"))
    for where, behind in (("#summary", ground), ("#count", ground), ("#detail dt", card), ("#detail dd", card)):
        text = luminance(page.find_element(By.CSS_SELECTOR, where).value_of_css_property("color"))
        low, high = sorted((text, behind))
        assert (high + 0.05) / (low + 0.05) >= 4.5, where


def test_a_phone_shows_hundreds_of_edges_and_the_tapped_one(open_page):
    page = open_page("large", size=(360, 740), in_vars=[f"a rather long name {n}" for n in range(30)])
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.find_element(By.ID, "all").click()
    assert len(edges(page)) == 30 * 8 + 8 * 2
    sides = [edge.find_element(By.TAG_NAME, "rect").rect["width"] for edge in edges(page)[::40]]
    assert min(sides) >= 20
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", edges(page)[0])
    edges(page)[0].click()
    bounds = "return ['.edge', '#detail'].map((s) => document.querySelector(s).getBoundingClientRect().toJSON())"
    edge, over = page.execute_script(bounds)
    assert "score" in panel(page) and 0 <= edge["top"] and edge["bottom"] <= over["top"] < 740
