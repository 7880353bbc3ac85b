"""HDR and wide colours become SDR of BT.709. All expected values are computed here from the definitions."""

import struct

import av
import numpy as np
import pytest

from media import hdr
from media.hdr import BT709, BT2020, DISPLAY_P3, HLG, PQ, Converter
from media.video import translate_video

# from linear BT.2020 to linear BT.709, as BT.2087 and BT.2407 print it
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def pq(luminance):
    """ST 2084: cd/m2 -> signal"""
    y = (np.asarray(luminance, float) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(display):
    """BT.2100: light in cd/m2 of a display of 1000 cd/m2, gray -> signal"""
    scene = (np.asarray(display, float) / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def sdr(luminance):
    """What a display of gamma 2.4 and 203 cd/m2 shows as such a luminance, in gray levels."""
    return 255 * (np.asarray(luminance, float) / 203).clip(0, 1) ** (1 / 2.4)


def signal(values):
    """Values in [0, 1] -> one row of gray or RGB pixels, uint16 (1, N, 3)"""
    values = np.asarray(values, float)
    values = np.repeat(values[:, None], 3, axis=1) if values.ndim == 1 else values
    return np.rint(values * 65535).astype(np.uint16)[None]


def test_known_signals():
    """The table of BT.2408: HDR reference white, 203 cd/m2, is 58% in PQ and 75% in HLG; an 18% gray card, 26 cd/m2,
    is 38% in both."""
    assert hdr.pq_to_luminance(0.58) == pytest.approx(203, rel=0.01)
    assert hdr.pq_to_luminance(0.38) == pytest.approx(26, rel=0.04)
    assert hdr.pq_to_luminance([0, 1]).tolist() == [0, 10_000]
    assert hdr.hlg_to_scene(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert 1000 * hdr.hlg_to_scene(np.array(0.75)) ** 1.2 == pytest.approx(203, rel=0.01)
    assert 1000 * hdr.hlg_to_scene(np.array(0.38)) ** 1.2 == pytest.approx(26, rel=0.04)
    assert hdr.luminance_to_pq(np.array([1, 203, 1000])) == pytest.approx(pq([1, 203, 1000]), abs=1e-9)
    to_xyz = {name: hdr.to_xyz(hdr.D65, hdr.CHROMATICITIES[name]) for name in (BT709, BT2020)}
    matrix = np.linalg.inv(to_xyz[BT709]) @ to_xyz[BT2020]
    assert np.abs(matrix - TO_709).max() < 1e-4
    assert to_xyz[BT709][1] == pytest.approx([0.2126, 0.7152, 0.0722], abs=1e-4)


@pytest.mark.parametrize("transfer, encode", [(PQ, pq), (HLG, hlg)])
def test_gray_levels(transfer, encode):
    convert = Converter(transfer, BT2020)
    dark = np.array([0, 0.05, 0.5, 2, 5, 10, 26, 50, 80])
    assert np.abs(convert(signal(encode(dark)))[0] - sdr(dark)[:, None]).max() <= 1  # below the knee, as it is
    assert 105 <= convert(signal(encode(np.array([26]))))[0, 0, 0] <= 111  # SDR's mid gray
    assert 226 <= convert(signal(encode(np.array([203]))))[0, 0, 0] <= 234  # white leaves room for highlights
    bright = convert(signal(encode(np.geomspace(50, 1000, 40))))[0, :, 0].astype(int)
    assert bright[-1] == 255 and (np.diff(bright) >= 0).all() and np.unique(bright).size > 30


def test_tone_curve_is_smooth_and_ends_at_the_targets_peak():
    luminance = np.linspace(0.01, 1000, 5000)
    result = hdr.tone_curve(luminance, 1000, 203)
    assert result[-1] == pytest.approx(203, rel=1e-6) and (np.diff(result) > -1e-9).all()
    assert np.abs(result - luminance)[luminance < 82].max() < 1e-6
    assert np.abs(np.diff(np.diff(result))).max() < 0.01  # no corner at the knee
    assert hdr.tone_curve(np.array([4000.0]), 1000, 203) == pytest.approx(203)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colours_within_bt709_stay_what_they_are(transfer):
    rng = np.random.default_rng(0)
    light = rng.uniform(1, 80, (50, 3))  # linear BT.709, cd/m2
    wide = light @ np.linalg.inv(TO_709).T
    if transfer == PQ:
        pixels = signal(pq(wide))
    else:
        luminance = wide @ (0.2627, 0.6780, 0.0593)
        scene = wide / 1000 * ((luminance / 1000) ** (1 / 1.2 - 1))[:, None]  # the inverse OOTF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        pixels = signal(np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c))
    assert np.abs(Converter(transfer, BT2020)(pixels)[0] - sdr(light)).max() <= 1.1


def test_bright_colours_keep_their_hue():
    light = np.array([[800.0, 200, 100]])
    result = (Converter(PQ, BT2020)(signal(pq(light @ np.linalg.inv(TO_709).T)))[0, 0] / 255) ** 2.4
    assert result / result[0] == pytest.approx([1, 0.25, 0.125], abs=0.01)


@pytest.mark.parametrize("primaries", [BT2020, DISPLAY_P3])
def test_wide_colours_of_sdr(primaries):
    rng = np.random.default_rng(0)
    values = np.concatenate((rng.uniform(0.05, 1, (50, 3)), np.repeat(np.linspace(0, 1, 9)[:, None], 3, axis=1)))
    to_709 = TO_709
    if primaries == DISPLAY_P3:  # as CSS Color 4 and others print it
        to_709 = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    wide = (values**2.4 @ np.linalg.inv(to_709).T).clip(0, 1) ** (1 / 2.4)
    expected = 255 * ((wide**2.4) @ to_709.T).clip(0, 1) ** (1 / 2.4)
    assert np.abs(Converter(1, primaries)(signal(wide))[0] - expected).max() <= 1.5


def test_peak_of_the_mastering_display():
    frame = av.VideoFrame(16, 16, "yuv420p10le")
    assert hdr.mastering_peak(frame) is None
    data = struct.pack("<20i2i", *[0, 1] * 8, 50, 10_000, 40_000_000, 10_000, 1, 1)

    class Mastered:
        side_data = {"MASTERING_DISPLAY_METADATA": data}

    assert hdr.mastering_peak(Mastered) == 4000
    convert = {peak: Converter(PQ, BT2020, peak)(signal(pq([1000, 4000])))[0, :, 0] for peak in (None, 4000)}
    assert convert[None].tolist() == [255, 255] and convert[4000][0] < 252 and convert[4000][1] == 255


##############################
#           Files
##############################

BARS = np.array(
    [[203, 203, 203], [26, 26, 26], [60, 6, 6], [6, 60, 6], [6, 6, 60], [50, 50, 10]], float
)  # cd/m2, BT.709


def write_10_bit(path, signals, kr, kb, tags):
    """Bars with RGB signals in [0, 1], (N, 3), as lossless 10-bit YUV of limited range. tags: colorspace, primaries and
    transfer, by FFmpeg's numbers"""
    r, g, b = signals.T
    y = kr * r + (1 - kr - kb) * g + kb * b
    planes = np.stack([64 + 876 * y, 512 + 896 * (b - y) / (2 - 2 * kb), 512 + 896 * (r - y) / (2 - 2 * kr)])
    planes = np.rint(planes).astype(np.uint16)[:, None].repeat(32, axis=1).repeat(16, axis=2)  # (3, 32, 16 N)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *planes.shape[1:], "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = tags
        context.color_range = 1
        for _ in range(2):
            frame = av.VideoFrame(planes.shape[2], planes.shape[1], "yuv444p10le")
            for plane, values in zip(frame.planes, planes):
                padded = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                padded[:, : plane.width] = values
                plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def translated_bars(source, target):
    """-> what the network sees of the middle of each bar, and what the written file shows, (N, 3); a decoded frame; the
    VideoResult"""
    seen = []
    result = translate_video(source, str(target), lambda frames: seen.append(frames) or frames)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    return seen[0][0, 16, 8::16], frame.to_ndarray(format="rgb24")[16, 8::16], frame, result


@pytest.mark.parametrize("transfer, name", [(PQ, "PQ"), (HLG, "HLG")])
@pytest.mark.parametrize("extension", [".mp4", ".webm"])
def test_hdr_files(tmp_path, transfer, name, extension):
    wide = BARS @ np.linalg.inv(TO_709).T
    if transfer == PQ:
        signals = pq(wide)
    else:
        luminance = wide @ (0.2627, 0.6780, 0.0593)
        scene = wide / 1000 * ((luminance / 1000) ** (1 / 1.2 - 1))[:, None]
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signals = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    source = write_10_bit(tmp_path / "clip.mkv", signals, 0.2627, 0.0593, (9, 9, transfer))
    seen, shown, frame, result = translated_bars(source, tmp_path / f"out{extension}")
    assert np.abs(seen[0].astype(int) - 230).max() <= 4 and np.abs(seen[1].astype(int) - 108).max() <= 4
    assert np.abs(seen[2:] - sdr(BARS[2:])).max() <= 4  # 10 bits of PQ are coarse where it is dark
    assert np.abs(shown.astype(int) - seen).max() <= 8
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"
    assert result.notes == [f"HDR ({name}) was converted to SDR"]


def test_wide_colours_of_an_sdr_file(tmp_path):
    light = (BARS / 203) @ np.linalg.inv(TO_709).T
    source = write_10_bit(tmp_path / "clip.mkv", light.clip(0, 1) ** (1 / 2.4), 0.2627, 0.0593, (9, 9, 14))
    seen, shown, frame, result = translated_bars(source, tmp_path / "out.mp4")
    assert np.abs(seen - sdr(BARS)).max() <= 3 and np.abs(shown.astype(int) - seen).max() <= 8
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    assert result.notes == ["colours of BT.2020 were converted to BT.709"]


def test_10_bits_alone_are_not_hdr(tmp_path):
    signals = (BARS / 203) ** (1 / 2.4)
    source = write_10_bit(tmp_path / "clip.mkv", signals, 0.2126, 0.0722, (1, 1, 1))
    seen, _, frame, result = translated_bars(source, tmp_path / "out.mp4")
    assert np.abs(seen - 255 * signals).max() <= 2
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1) and result.notes == []
