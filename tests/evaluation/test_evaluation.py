"""Metrics against known values; the protocol; the shipped models against plain references."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from support.paths import ROOT
from support.scenes import scene
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation.cost import kilo_macs, middle
from vidnoise.evaluation.metrics import psnr, ssim, temporal_error
from vidnoise.evaluation.peers import PEERS
from vidnoise.evaluation.protocol import Method, clean_clips, clean_stills, evaluate, network_method, noisy_clip, score
from vidnoise.evaluation.results import read_references
from vidnoise.model import TIERS, uniform_sigma
from vidnoise.weights import list_models, load_model


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(2, 3, 8, 8)
    assert psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0])


def test_ssim_of_known_pictures() -> None:
    a = scene(1)
    assert ssim(a, a).item() == pytest.approx(1.0)
    # Of two constants c and d only the luminance term is left: (2cd + C1) / (c² + d² + C1).
    c, d = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)
    assert ssim(c, d).item() == pytest.approx((0.48 + 1e-4) / (0.52 + 1e-4), abs=1e-4)


def test_ssim_is_that_of_the_paper() -> None:
    """At one place, by the formula of Wang et al. with their window: Gaussian, 11 x 11, sigma 1.5."""
    a = scene(1, size=11)
    b = noisy_clip("s", a, 20).clamp(0, 1)
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(window, window) / window.sum() ** 2
    expected = []
    for x, y in zip(a[0].double().numpy(), b[0].double().numpy(), strict=True):
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        covariance = (weights * (x - mx) * (y - my)).sum()
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        expected.append(luminance * (2 * covariance + 0.03**2) / (vx + vy + 0.03**2))
    assert ssim(a, b).item() == pytest.approx(np.mean(expected), abs=1e-4)


def test_temporal_error_ignores_constant_bias() -> None:
    clean = scene(4)
    assert temporal_error(clean + 0.1, clean) == pytest.approx(0, abs=1e-4)
    flicker = torch.tensor([0.0, 0.1, 0.0, 0.1]).view(4, 1, 1, 1)
    assert temporal_error(clean + flicker, clean) == pytest.approx(25.5, abs=1e-3)


def test_protocol_noise_is_seeded_by_clip_and_sigma() -> None:
    clean = scene(3)
    noisy = noisy_clip("a", clean, 30)
    assert torch.equal(noisy, noisy_clip("a", clean, 30))
    assert not torch.equal(noisy, noisy_clip("b", clean, 30))
    assert (noisy - clean).std() * 255 == pytest.approx(30, rel=0.02)
    assert noisy.min() < 0  # not clipped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips")
    writer = cv2.VideoWriter(str(path / "scene.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 25, (96, 96))
    for frame in scene(5):
        writer.write(np.ascontiguousarray((frame.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)))
    writer.release()
    return path


def test_evaluate_averages_over_clips(folder: Path) -> None:
    rows = evaluate(lambda noisy, sigma: noisy, clean_clips(folder, 4), 30.0)
    # Clipping to [0, 1] removes a little of the noise, so the score lies just above the unclipped value.
    assert 0 < rows["mean"]["psnr"] - 20 * np.log10(255 / 30) < 2
    assert rows["mean"] == rows["scene"]
    assert rows["mean"]["ms_per_megapixel"] > 0
    with pytest.raises(SourceOpenError, match="no clips"):
        evaluate(lambda noisy, sigma: noisy, clean_clips(folder.parent / "none"), 30.0)


def test_two_clips_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "scene.avi", tmp_path / name)
    with pytest.raises(SourceOpenError, match="two clips"):
        list(clean_clips(tmp_path))


def test_the_time_of_starting_a_program_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = scene(2)
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def sleepy(seconds: float) -> Method:
        def method(noisy: torch.Tensor, _: float) -> torch.Tensor:
            nonlocal now
            now += seconds
            return noisy

        return method

    megapixels = 2 * 96 * 96 / 1e6
    whole = score(sleepy(0.05), "s", clean, 30)["ms_per_megapixel"] * megapixels
    net = score(sleepy(0.05), "s", clean, 30, sleepy(0.04))["ms_per_megapixel"] * megapixels
    none = score(sleepy(0.01), "s", clean, 30, sleepy(0.04))["ms_per_megapixel"]
    assert whole == pytest.approx(50)
    assert net == pytest.approx(10)
    assert none > 0  # lost in the noise, and positive all the same


def test_times_are_medians_over_clips() -> None:
    rows = [{"psnr": p, "ms_per_megapixel": t} for p, t in ((30.0, 10.0), (31.0, 11.0), (35.0, 500.0))]
    assert middle(rows) == {"psnr": 32.0, "ms_per_megapixel": 11.0}


def test_frame_wise_is_the_spatial_core_alone() -> None:
    network = load_model("fast").network
    noisy = noisy_clip("s", scene(3, size=72), 30)  # 72 is no multiple of 16: it is padded
    padded = torch.nn.functional.pad(noisy, [0, 8, 0, 8], mode="reflect")
    with torch.no_grad():
        expected = network.still(padded, uniform_sigma(30 / 255, padded))[..., :72, :72]
    alone = network_method(network, frame_wise=True)(noisy, 30 / 255)
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-4)
    kept = network_method(network)(noisy, 30 / 255)
    apart = (alone - kept).abs().mean((1, 2, 3))
    assert 20 * apart[0] < apart[2]  # there is no past at first


def test_multiply_adds() -> None:
    whole, alone = (kilo_macs(TIERS["fast"], frame_wise=f) for f in (False, True))
    assert 0.5 * whole < alone < whole < 10


def test_gray_pictures_keep_equal_channels_and_are_judged_on_their_mean(tmp_path: Path) -> None:
    picture = (scene(1)[0].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set" / "colour.png"), picture)
    cv2.imwrite(str(tmp_path / "set" / "gray.png"), cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
    pictures = dict(clean_stills(tmp_path))
    assert {name: tuple(p.shape) for name, p in pictures.items()} == {
        "set/colour": (1, 3, 96, 96), "set/gray": (1, 1, 96, 96)
    }  # fmt: skip
    torch.testing.assert_close(pictures["set/colour"], scene(1), rtol=0, atol=0.5 / 255 + 1e-6)
    seen = []

    def method(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(noisy)
        return noisy + torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)  # gone in the mean, if that is taken

    rows = evaluate(method, clean_stills(tmp_path), 5.0)
    colour, gray = seen
    assert colour.shape == gray.shape == (1, 3, 96, 96)
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert not torch.equal(colour[:, 0] - pictures["set/colour"][:, 0], colour[:, 1] - pictures["set/colour"][:, 1])
    assert set(rows["set/gray"]) == {"psnr", "ssim", "ms_per_megapixel"}
    assert rows["set/gray"]["psnr"] > 30 > 25 > rows["set/colour"]["psnr"]


def run_command(*arguments: object) -> Result:
    from vidnoise.cli.evaluate import evaluate as command

    return CliRunner().invoke(command, [*(str(a) for a in arguments), "--device", "cpu", "--threads", "1"])


def test_command_writes_json_table_and_plot(folder: Path, tmp_path: Path) -> None:
    output, references = tmp_path / "out" / "quality.json", tmp_path / "references.toml"
    references.write_text(
        '[other]\nclips = ["a"]\nframes = 3\n[mine]\nclips = ["scene"]\nframes = 3\n'
        "[mine.method.FFDNet]\npsnr = { 15 = 30.5, 30 = 29.25 }\nkmac_per_pixel = 213\n"
    )
    arguments = [folder, "--model", "fast", "--frame-wise", "--peers", "opencv-nlm", "--frames", "3", "-o", output]
    arguments += ["--lookahead", 0, "--lookahead", 2]
    result = run_command(*arguments, "--sigma", 30, "--reference", references)
    assert result.exit_code == 0, result.output
    written = json.loads(output.read_text())
    assert written["protocol"].items() >= {
        "kind": "video", "clips": ["scene"], "frames": 3, "blind": False, "threads": 1, "device": "cpu"
    }.items()  # fmt: skip
    assert list(written["methods"]) == ["fast", "fast (lookahead 2)", "fast (frame by frame)", "opencv-nlm"]
    means = {label: method["sigmas"]["30"]["mean"] for label, method in written["methods"].items()}
    assert means["fast (lookahead 2)"]["psnr"] > means["fast"]["psnr"] > means["fast (frame by frame)"]["psnr"] > 20
    assert all(mean["ms_per_megapixel"] > 0 for mean in means.values())
    macs = [written["methods"][label].get("kmac_per_pixel") for label in means]
    assert 10.5 > macs[1] > macs[0] > macs[2] > 5
    assert macs[0] < 10
    assert macs[3] is None
    table = output.with_suffix(".md").read_text()
    assert f"{means['fast']['psnr']:.2f}" in table
    assert f"{means['fast']['psnr_first']:.2f}" in table
    assert "| FFDNet (given) | 29.25 |" in table
    assert output.with_suffix(".png").stat().st_size > 20_000
    assert cv2.imread(str(output.with_suffix(".png"))).std() > 10

    # Again with one sigma more: what is there is kept, given figures too, and the noise of old levels is the same.
    result = run_command(*arguments, "--sigma", 30, "--sigma", 15)
    assert result.exit_code == 0, result.output
    assert result.output.count("kept from") == 4
    more = json.loads(output.read_text())
    assert [list(m["sigmas"]) for m in more["methods"].values()] == [["15", "30"]] * 4
    assert all(m["sigmas"]["30"]["mean"] == means[label] for label, m in more["methods"].items())
    assert "| FFDNet (given) | 30.50 | 29.25 |" in output.with_suffix(".md").read_text()

    result = run_command(folder, "--model", "none", "--peers", "opencv-nlm", "--sigma", 30, "--frames", 3, "-o", output,
                         "--again")  # fmt: skip
    assert result.exit_code == 0, result.output
    again = json.loads(output.read_text())["methods"]["opencv-nlm"]["sigmas"]
    assert again["15"] == more["methods"]["opencv-nlm"]["sigmas"]["15"]
    assert again["30"]["mean"]["psnr"] == means["opencv-nlm"]["psnr"]
    assert again["30"]["mean"]["ms_per_megapixel"] != means["opencv-nlm"]["ms_per_megapixel"]


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A results file of one network, as if it had been measured."""
    row = {"psnr": 33.0, "ssim": 0.9, "temporal_error": 3.0, "psnr_first": 31.0, "ms_per_megapixel": 50.0}
    protocol = {"kind": "video", "clips": ["scene"], "frames": 3, "blind": False, "threads": 1, "device": "cpu"}
    method = {"kmac_per_pixel": 9.0, "weights": "old", "sigmas": {"30": {"scene": row, "mean": row}}}
    path = tmp_path / "quality.json"
    path.write_text(json.dumps({"protocol": protocol, "methods": {"fast": method, "other": method}}))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frames", 4], "frames a clip: 3; now: 4"),
        (["--frames", 3, "--blind"], "blind: no; now: yes"),
        (["--frames", 3, "--threads", 2], "CPU threads: 1; now: 2"),
    ],
)
def test_other_settings_are_not_mixed(folder: Path, measured: Path, arguments: list[object], words: str) -> None:
    before = measured.read_text()
    from vidnoise.cli.evaluate import evaluate as command

    options = [str(a) for a in (folder, "--peers", "none", "--device", "cpu", "--threads", 1, *arguments)]
    result = CliRunner().invoke(command, [*options, "-o", str(measured)])
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)
    assert measured.read_text() == before


def test_other_clips_are_not_mixed(folder: Path, measured: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    shutil.copy(folder / "scene.avi", tmp_path / "clips" / "second.avi")
    result = run_command(tmp_path / "clips", "--model", "none", "--peers", "none", "--frames", 3, "-o", measured)
    assert isinstance(result.exception, UsageError)
    assert "clips: scene; now: second" in str(result.exception)


def test_what_is_no_results_file_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    for text in ("{", "[]", '{"fast": {}}'):
        path.write_text(text)
        result = run_command(folder, "--peers", "none", "-o", path)
        assert isinstance(result.exception, UsageError)
        assert path.read_text() == text


def test_changed_weights_are_measured_again(folder: Path, measured: Path) -> None:
    result = run_command(folder, "--model", "fast", "--peers", "none", "--frames", 3, "--sigma", 15, "-o", measured)
    assert result.exit_code == 0, result.output
    assert "weights have changed" in result.output
    methods = json.loads(measured.read_text())["methods"]
    assert list(methods["fast"]["sigmas"]) == ["15"]  # nothing is left of the old weights
    assert list(methods["other"]["sigmas"]) == ["30"]


def test_without_matplotlib_there_is_a_line_instead_of_a_plot(
    folder: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run_command(folder, "--model", "none", "--peers", "none", "--frames", 3, "-o", measured)
    assert result.exit_code == 0, result.output
    assert "no plot" in result.output
    assert "vidnoise[train]" in result.output
    assert not measured.with_suffix(".png").exists()


def test_labels_of_the_plot_do_not_cover_each_other() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from vidnoise.evaluation.plot import Point, label_dots, scatter

    figure = Figure(figsize=(6, 5))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    near = [Point(f"method {i}", "vidnoise", 30 + 0.02 * i, 100.0 + i, None) for i in range(8)]
    far = [Point("far", "other filters", 25.0, 5000.0, None)]
    scatter(axes, [(p, p.ms or 0) for p in near + far])
    figure.draw_without_rendering()
    label_dots(axes)
    assert [t.get_text() for t in axes.texts] == [*(f"method {i}" for i in range(7, -1, -1)), "far"]
    boxes = [Text.get_window_extent(t) for t in axes.texts]
    assert not [(i, k) for i, a in enumerate(boxes) for k, b in enumerate(boxes) if i < k and a.overlaps(b)]


def test_stills(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture = (scene(1, size=72)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    cv2.imwrite(str(pictures / "gray.png"), picture[..., 1])
    output = tmp_path / "stills.json"
    result = run_command(pictures, "--stills", "--model", "fast", "--peers", "opencv-nlm", "-o", output)
    assert result.exit_code == 0, result.output
    written = json.loads(output.read_text())
    assert (written["protocol"]["kind"], written["protocol"]["frames"]) == ("stills", 1)
    for label in ("fast", "opencv-nlm"):
        sigmas = written["methods"][label]["sigmas"]
        assert list(sigmas) == ["15", "25", "50"]
        assert all(rows["mean"]["psnr"] > 20 * np.log10(255 / float(s)) + 1.5 for s, rows in sigmas.items())
    table = output.with_suffix(".md").read_text()
    assert "temporal" not in table
    assert "first frame" not in table


def test_reference_figures_need_a_table_for_these_clips(folder: Path) -> None:
    shipped = ROOT / "benchmarks" / "references.toml"
    result = run_command(folder, "--model", "none", "--peers", "none", "--reference", shipped)
    assert isinstance(result.exception, UsageError)
    assert "val, test-video" in str(result.exception)
    clips = ["davis_lady_running", "vid4_calendar", "vid4_city", "vid4_walk"]
    given = read_references(shipped, {"clips": clips, "frames": 20})
    assert given["FFDNet"] == {"psnr": {"10": 36.95, "30": 31.19, "50": 28.63}, "kmac_per_pixel": 213}


MARGIN = {"fast": 0.8, "standard": 3.0, "quality": 3.0}
"""dB. The scene is drawn, smooth and colourful, which suits blurring; on real clips the margins are larger."""


@functools.lru_cache
def best_plain_reference(sigma: int) -> float:
    """PSNR on the drawn scene of Gaussian blur or OpenCV's non-local means, each at its best strength."""
    clean = scene(8)
    noisy = noisy_clip("scene", clean, sigma)
    blurs = [
        torch.from_numpy(np.stack([cv2.GaussianBlur(f, (0, 0), s) for f in noisy.permute(0, 2, 3, 1).numpy()]))
        for s in (0.5, 0.7, 1.0, 1.4)
    ]
    peer = PEERS["opencv-nlm"]
    references = [b.permute(0, 3, 1, 2).clamp(0, 1) for b in blurs]
    references += [peer.method(s)(noisy, 0.0) for s in peer.strengths(sigma)]
    return max(psnr(r, clean).mean().item() for r in references)


@pytest.mark.parametrize(
    ("sigma", "blind"),
    [(15, True), (40, False), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((15, False), (40, True)))],
)
@pytest.mark.parametrize("name", ["fast", "standard", "quality"])
def test_shipped_models_beat_plain_references(name: str, sigma: int, blind: bool) -> None:
    """Better than the best of them by the tier's margin."""
    assert name in list_models()
    clean = scene(8)
    noisy = noisy_clip("scene", clean, sigma)
    network = load_model(name).network
    ours = psnr(network_method(network, blind=blind)(noisy, sigma / 255).clamp(0, 1), clean).mean().item()
    assert ours > best_plain_reference(sigma) + MARGIN[name]
