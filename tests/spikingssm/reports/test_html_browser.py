"""The page of results in a browser: no error, no request, and pictures that zoom and tell values."""

import html
import json
import re
import shutil
import subprocess

import pytest
from report_runs import HOSTILE, folder, result

from spikingssm.reports.html import page
from spikingssm.reports.html_runs import collect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-sync", "--disable-component-update", "--disable-features=NetworkTimeServiceQuerying",
    "--enable-logging=stderr", "--virtual-time-budget=2000", "--window-size=1000,800",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
"""Nothing leaves this machine, and what the browser asks for on its own account is left out as far as it goes."""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

DRIVE = """
const found = {}, svg = document.querySelector("#curves svg"), figure = svg.closest("figure");
const content = figure.querySelector(".content"), box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
const axes = JSON.parse(figure.dataset.axes)[0];
const at = (name, x, y, more) => svg.dispatchEvent(new (name === "wheel" ? WheelEvent : PointerEvent)(name, {
  clientX: box.left + (x * box.width) / view.width, clientY: box.top + (y * box.height) / view.height, bubbles: true,
  cancelable: true, ...more }));
const matrix = () => (content.getAttribute("transform") || "").match(/[-.0-9e]+/g)?.map(Number);
const place = (x, y) => {
  const [l, t, r, b] = axes.box, [x0, x1, y0, y1] = axes.limits;
  return [l + ((x - x0) / (x1 - x0)) * (r - l), t + ((y - y1) / (y0 - y1)) * (b - t)];
};
const key = (name) => svg.dispatchEvent(new KeyboardEvent("keydown", { key: name, cancelable: true }));
at("pointermove", ...place(2, 1.4));
found.told = figure.querySelector("output").textContent;
at("pointerdown", ...place(1.5, 2));
at("pointermove", ...place(2.5, 1.35));
at("pointerup", ...place(2.5, 1.35));
found.dragged = matrix();
found.marks = [...figure.querySelectorAll(".marks text")].map((text) => text.textContent);
key("0");
found.reset = matrix();
found.left = figure.querySelectorAll(".marks text, .zoomed, .frame").length;
at("wheel", ...place(2, 1.4), { deltaY: -1 });
found.unfocused = matrix();
svg.focus({ preventScroll: true });
at("wheel", ...place(2, 1.4), { deltaY: -1 });
found.wheel = matrix()[0];
key("-"); key("-");
found.out = matrix()[0];
key("+"); key("ArrowRight");
found.moved = matrix()[4] < 0;
const check = document.querySelector(".legend input");
check.click();
found.hidden = document.querySelectorAll("#curves .off").length;
found.shown = !check.hidden && !figure.querySelector(".buttons").hidden;
found.run = window.ran || "no";
found.script = document.querySelectorAll("script").length;
document.body.dataset.found = JSON.stringify(found);
"""


def looked_at(text, place):
    """The page as the browser has it, what it logs to its console, and the addresses that it asks for."""
    (place / "page.html").write_text(text)
    log = place / "net.json"
    options = [*FLAGS, f"--user-data-dir={place / 'profile'}", f"--log-net-log={log}", "--dump-dom"]
    address = (place / "page.html").as_uri()
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    asked = set(re.findall(r'"url":"(https?:[^"]+)"', log.read_text()))
    own = {url for url in asked if re.match(r"https?://[\w.]*\b(google|gstatic|googleapis)\.com/", url)}
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked - own


def free(text):
    """A page without its policy, so that other scripts run in it."""
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    evil = {"recall": {HOSTILE.replace("alert(1)", "window.ran=1"): 1}, "confusion": [[3]]}
    test = {**result()["test"], "by_class": evil}
    return page(collect([folder(place / "a", test=test), folder(place / "b", 1)]), 0)


def test_a_page_has_no_error_and_asks_nobody(text, tmp_path):
    dom, said, asked = looked_at(text, tmp_path)
    assert not said
    assert not asked
    assert dom.count("<button") == 3 * text.count("<figure")  # so the script ran, though only one of its digest may


def test_what_is_not_ours_is_not_run_and_requests_would_be_seen(text, tmp_path):
    picture = "https://example.invalid/x.png"
    wrong = text.replace("</main>", f"</main><script>document.title='ran'</script><img src='{picture}'>")
    dom, said, asked = looked_at(wrong, tmp_path)
    assert len([line for line in said if "Content Security Policy" in line]) >= 2
    assert "<title>ran</title>" not in dom
    assert not asked
    dom, _, asked = looked_at(free(wrong), tmp_path)  # without the page's own policy
    assert "<title>ran</title>" in dom
    assert asked == {picture}


def test_pictures_zoom_and_tell_values(text, tmp_path):
    dom, said, _ = looked_at(free(text).replace("</body>", f"<script>{DRIVE}</script></body>"), tmp_path)
    assert not said
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
    assert found["told"] == "a, validation, epoch 2: 1.4"
    sx, _, _, sy, _, _ = found["dragged"]
    assert sx == pytest.approx(2.2, abs=0.03)  # 1.5 to 2.5 of 0.9 to 3.1
    assert sy == pytest.approx(1.185, abs=0.03)  # 1.35 to 2 of 1.265 to 2.035
    assert "2" in found["marks"]
    assert found["reset"] == pytest.approx([1, 0, 0, 1, 0, 0])
    assert found["left"] == 0
    assert found["unfocused"] == found["reset"]
    assert found["wheel"] == pytest.approx(1.25)
    assert found["out"] == pytest.approx(1)
    assert found["moved"]
    assert found["hidden"] >= 4
    assert found["shown"]
    assert found["run"] == "no"
    assert found["script"] == 2


def test_a_page_is_read_without_its_script(text, tmp_path):
    dom, _, _ = looked_at(re.sub(r"<script>.*?</script>", "", text, flags=re.S), tmp_path)
    assert 'class="buttons" hidden' in dom
    assert dom.count("<svg") == text.count("<svg") > 0
