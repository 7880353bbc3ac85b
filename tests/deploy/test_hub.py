"""export.py --format hub: a folder as the Hugging Face Hub wants it."""

import getpass
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import export
import translate
from command_line.provenance import VERSION
from deploy import card, hub
from inference.exported import Exported
from inference.generator import TrainedGenerator
from inference.load import load_generator
from media.files import save_file
from models import GeneratorResNet, weights_init_normal
from utils import InputError
from variants.build import channels_of, make_generator

pytest.importorskip("safetensors", reason="requires safetensors: pip install safetensors")

LATEST, FOLDER = "saved_models/tiny/latest.pth", "saved_models/tiny/hub"
PRIVATE = dict(data_dir="/home/alice/sets", run_name="alices_run", vgg_weights="/home/alice/vgg.pth", start_from="/home/alice/x.pth",
               device="cuda:3", options="/home/alice/options.json", n_cpu=7, lr=0.0002, lambda_cyc=5.0, n_epochs=40, amp=False)  # fmt: skip
MADE = dict(version="1.0", torch="2.9.1", commit="0123456789ab", date="2026-01-01T00:00:00+0000",
            commands=["python cyclegan.py --data_dir /home/alice/sets"], started_from={"file": "/home/alice/x.pth"},
            data={"folder": "/home/alice/sets/tiny", "A": 40, "B": 50, "hash": "a", "sample": ["b"]})  # fmt: skip
MEASURED = {"AB": {"cycle_l1": 12.345, "paired_psnr": 20.5}, "BA": {"cycle_l1": 23.456}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "ONNX_PACKAGES", ("no_such_package",))  # which takes its time
    return tmp_path


def write_run(made=None, epoch=3, **more):
    """Writes a run: a checkpoint, its sample grids and metrics.jsonl"""
    options = dict(dataset_name="tiny", img_height=32, img_width=48, channels=3, ngf=4, n_residual_blocks=1)
    options |= PRIVATE | more
    state = dict(version=1, options=options, epoch=epoch, step=120, provenance=MADE if made is None else made)
    torch.manual_seed(0)
    n = channels_of(options)
    for name, channels in (("G_AB", n), ("G_BA", n[::-1])):
        state[name] = make_generator(options, *channels).apply(weights_init_normal).state_dict()
    os.makedirs("saved_models/tiny")
    save_file(state, LATEST)
    write_metrics(
        {"epoch": epoch, "results": MEASURED, "size": [32, 48], "protocol": ["translations are rounded to 8 bits"]}
    )


def write_metrics(*records):
    with open("saved_models/tiny/metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def write_grid(step, colour, **text):
    os.makedirs("images/tiny", exist_ok=True)
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    Image.new("RGB", (30, 20), colour).save(f"images/tiny/{step:06d}.png", pnginfo=info)


def export_hub(*words):
    export.main(["--checkpoint", LATEST, "--format", "hub", *words])
    return open(f"{FOLDER}/README.md", encoding="utf-8").read() if os.path.exists(FOLDER) else None


def rows_of(text, title):
    """The tables of a section -> {first cell: other cells}"""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


##############################
#   The card
##############################


def test_what_the_card_says(folder):
    write_run(residual=True, ema=0.999, pool_size=50)
    text = export_hub()
    assert "# CycleGAN: tiny\n" in text and "`AB` (A → B) and `BA` (B → A)" in text
    assert "python translate.py --checkpoint NAME --direction BA --input photo.jpg --size 32\n" in text
    facts = rows_of(text, "Training")
    assert facts["data set"] == ["tiny"] and facts["training images"] == ["40 of A and 50 of B"]
    assert facts["image size"] == ["48×32 pixels"] and (facts["epochs"], facts["steps"]) == (["3"], ["120"])
    expected = "--n_residual_blocks 1, --ngf 4, --lambda_cyc 5.0, --n_epochs 40, --no-amp, --residual, --ema 0.999"
    assert facts["options other than the defaults"][0].replace("`", "") == expected
    assert facts["code"] == ["`1.0 0123456789ab`"] and facts["torch"] == ["`2.9.1`"]
    results = rows_of(text, "Results")
    assert results["cycle reconstruction, L1, of 255 (lower is better)"] == ["12.35", "23.46"]
    assert results["paired ground truth, PSNR, dB (higher is better)"] == ["20.5", "–"]
    assert "On the test images at 48×32 pixels, after 3 epochs" in text
    assert "- translations are rounded to 8 bits" in text
    assert "no ONNX file" in text and "![" not in text  # no sample grid
    assert sorted(os.listdir(FOLDER)) == ["README.md", "config.json", "model.safetensors"]


def test_the_metadata_is_valid(folder):
    huggingface_hub = pytest.importorskip(
        "huggingface_hub", reason="requires huggingface_hub: pip install huggingface_hub"
    )
    write_run()
    text = export_hub()
    data = huggingface_hub.metadata_load(f"{FOLDER}/README.md")
    assert data == {
        "library_name": "pytorch",
        "pipeline_tag": "image-to-image",
        "tags": ["cyclegan", "gan", "unpaired", "image-to-image", "safetensors"],
    }
    assert text.count("license:") == 1  # the one place, for the author
    with_license = huggingface_hub.ModelCard(text.replace("# license: ...", "license: cc-by-4.0"))
    assert with_license.data.license == "cc-by-4.0" and with_license.data.pipeline_tag == "image-to-image"
    assert with_license.text.lstrip().startswith("# CycleGAN: tiny")
    assert huggingface_hub.ModelCard(text).data.license is None


def test_config_is_what_the_file_says(folder):
    write_run(range_A="0 4000", channels_B=1)
    export_hub()
    config = json.load(open(f"{FOLDER}/config.json"))
    for direction, n in (("AB", (3, 1)), ("BA", (1, 3))):
        network = load_generator(FOLDER, direction).network
        known = config["generators"][direction]
        assert (known["channels"], known["out_channels"]) == n == (network.channels, network.out_channels)
        assert (known["ngf"], known["n_residual_blocks"], known["multiple"], known["smallest"]) == (4, 1, 4, 32)
    assert config["generators"]["AB"]["range_in"] == config["generators"]["BA"]["range_out"] == "0 4000"
    assert config["options"] == {"dataset_name": "tiny", "img_height": 32, "img_width": 48}
    assert (config["epoch"], config["step"], config["value_range"]) == (3, 120, [-1, 1])
    assert config["exported_by"]["version"] == VERSION


def test_nothing_private_is_published(folder, monkeypatch):
    write_run()
    write_grid(100, "red", Author="alice")
    export_hub("--images", f"{folder}/data")
    everything = b"".join(open(os.path.join(FOLDER, name), "rb").read() for name in os.listdir(FOLDER))
    for private in ("alice", "/home", str(folder), "cuda", "hash", "--data_dir", "vgg.pth"):
        assert private.encode() not in everything, private
    user = getpass.getuser()
    assert user in ("root", "a") or user.encode() not in everything


@pytest.mark.parametrize("name", ["/home/alice/secret/horses", r"C:\Users\alice\horses", "../alice/horses"])
def test_a_data_set_is_named_without_its_folder(name, folder):
    write_run(dataset_name=name)
    assert "# CycleGAN: horses\n" in export_hub()
    everything = b"".join(open(os.path.join(FOLDER, name), "rb").read() for name in os.listdir(FOLDER))
    assert b"alice" not in everything


HOSTILE = [
    "x\n---\nlicense: mit\ntags: [evil]\n---\n",
    "<script>alert(1)</script>",
    "![x](https://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "`code` **bold** _it_ ~~gone~~ | a | b |",
    "https://evil.example www.evil.example me@evil.example",
    "&lt;img src=x onerror=alert(1)&gt; <!-- -->",
    "# title\r\n## Results\u2028# more\x1b[31m\u202e",
    "$x$ $$y$$ {{template}} :smile: - * + 1.",
    "\ud800 not a character",
    "x" * 4000,
]


@pytest.mark.parametrize("i", range(len(HOSTILE)))
def test_texts_from_files_cannot_leave_their_place(i, folder):
    evil = HOSTILE[i]
    write_run(made=MADE | {"version": evil, "torch": evil, "commit": evil, "data": {"A": evil, "B": True, "folder": evil}},
              dataset_name=evil.replace("/", " ").replace("\\", " "), range_A=None)  # fmt: skip
    write_metrics({"epoch": 3, "results": {"AB": {"cycle_l1": evil, evil: 3, "paired_ssim": 0.5}, evil: {}},
                   "size": [evil, 32], "protocol": [evil, 3, {"x": evil}] * 20})  # fmt: skip
    text = export_hub()
    plain = re.sub(r"\\([!-/:-@[-`{-~])", "", text)  # what an escape hides is no markup
    clean_run_text = re.sub(r"\\([!-/:-@[-`{-~])", "", clean_card())
    for markup in (
        "<",
        "**",
        "![",
        "](",
        "://",
        "www.",
        "~~",
        "$",
        "{{",
        "@",
        "\x1b",
        "\u2028",
        "\u202e",
        "\r",
        "javascript:",
    ):
        assert plain.count(markup) <= clean_run_text.count(markup), markup
    headings = re.findall(r"^#+ \S+", text, re.MULTILINE)
    assert headings == [
        "# Choose",
        "# license:",
        "# CycleGAN:",
        "## Use",
        "## Files",
        "## Training",
        "## Results",
        "## Limits",
    ]
    assert text.count("\n---\n") == 1 and text.startswith("---\n") and "xxxx" * 200 not in text
    assert {len(cells) for cells in rows_of(text, "Training").values()} == {1}
    assert rows_of(text, "Results")["paired ground truth, SSIM (higher is better)"] == ["0.5"]
    assert "cycle reconstruction" not in text and text.count("\n- ") <= 5 + 10
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(text.split("---\n")[1]).keys() == {"library_name", "pipeline_tag", "tags"}


def clean_card():
    one = TrainedGenerator(GeneratorResNet(3, 1, 4), "x", "AB")
    return card.card({"AB": one, "BA": one}, {"model.safetensors"}, None)


def test_escaped_texts_are_shown_as_they_are():
    assert card.escape("horse2zebra") == "horse2zebra"
    assert card.escape("a_b <i>") == r"a\_b &lt;i&gt;"
    assert card.escape("a\n\n# b") == r"a \# b"
    assert card.escape(["a"]) == "" and card.code("2.9.1+cu130") == "`2.9.1+cu130`"
    assert card.code("`x`") == "&#96;x&#96;"


def test_escaped_texts_in_a_renderer():
    markdown_it = pytest.importorskip("markdown_it", reason="requires markdown-it-py")
    render = markdown_it.MarkdownIt("commonmark").enable("table").render
    for evil in HOSTILE:
        shown = render(f"Text: {card.escape(evil)} end.")
        assert re.findall(r"<[^>]*>", shown) == ["<p>", "</p>"], shown
        row = render(f"| a | b |\n|---|---|\n| x | {card.escape(evil)} |")
        assert row.count("<td>") == 2 and row.count("<tr>") == 2


def test_options_of_any_type_are_left_out(folder):
    evil = torch.ones(3)
    options = {
        "lr": evil,
        "b1": [0.5],
        "seed": "1",
        "ngf": 32,
        "progressive": "`x` | <b>",
        "upsample": "evil",
        "flip": False,
    }
    assert card.changed_options(options) == ["`--ngf 32`", "`--no-flip`"]


@pytest.mark.parametrize(
    "lines, value",
    [
        ([], None),
        ([{"epoch": 2, "results": MEASURED}], None),
        ([{"epoch": 3, "results": MEASURED}, {"epoch": 4, "results": {"AB": {"cycle_l1": 1}}}], "12.35"),
        ([{"epoch": 3, "results": MEASURED}, {"epoch": 3, "results": {"AB": {"cycle_l1": 1}}}], "1"),
        ([{"epoch": 3, "results": {"AB": {"cycle_l1": float("nan")}, "BA": 3}}], None),
        ([{"epoch": 3, "results": {"AB": {"cycle_l1": True}}}, 3, None, [[]]], None),
        ([{"epoch": 3, "step": 110, "results": MEASURED}], None),  # the same epoch, before it ended; the step is 120
        ([{"epoch": 3, "step": 120, "results": MEASURED}, {"epoch": 3, "step": 110, "results": {}}], "12.35"),
    ],
)
def test_results_are_those_of_the_epoch(lines, value, folder):
    write_run()
    write_metrics(*lines)
    with open("saved_models/tiny/metrics.jsonl", "a") as file:
        file.write("[" * 100_000 + '\n{"epoch": 3, "resu')
    text = export_hub()
    assert ("Not measured" in text) == (value is None)
    if value:
        assert rows_of(text, "Results")["cycle reconstruction, L1, of 255 (lower is better)"][0] == value


##############################
#   The sample picture
##############################


def test_the_newest_grid_is_drawn_anew(folder):
    write_run()
    write_grid(0, "white")
    write_grid(100, "red", Author="alice", Comment="/home/alice")
    write_grid(500, "blue")  # of a later training
    text = export_hub()
    with Image.open(f"{FOLDER}/sample.png") as image:
        assert image.getpixel((3, 3)) == (255, 0, 0) and image.size == (30, 20) and image.info == {}
    assert "![Samples](sample.png)" in text and "real A, fake B, recovered A" in text


def test_without_a_grid_a_sheet_of_evaluate(folder):
    write_run()
    write_grid(0, "white")
    Image.new("RGB", (30, 20), "lime").save("images/tiny/evaluate_latest_AB.png")
    assert "Best and worst cases" in export_hub()
    with Image.open(f"{FOLDER}/sample.png") as image:
        assert image.getpixel((3, 3)) == (0, 255, 0)


def test_the_grid_of_another_run_of_this_name_is_not_published(folder, capsys):
    """The checkpoint is of a folder elsewhere, whose name is that of a run here."""
    write_run()
    write_grid(100, "red")
    export_hub()
    assert "sample.png shows images of the data set. If they are private, delete it" in capsys.readouterr().out
    os.makedirs("models")
    os.rename("saved_models/tiny", "models/tiny")
    export.main(["--checkpoint", "models/tiny/latest.pth", "--format", "hub", "--output", "elsewhere"])
    assert "sample.png" not in os.listdir("elsewhere") and "sample.png" not in capsys.readouterr().out


@pytest.mark.parametrize("version", [2.9, ["2.9"], {"a": 1}, True, None])
def test_a_version_that_is_no_text_is_left_out(folder, version):
    write_run(made=MADE | {"torch": version})
    assert "torch" not in rows_of(export_hub(), "Training")


@pytest.mark.parametrize("damage", ["broken", "pipe", "text"])
def test_a_bad_grid_is_left_out(damage, folder, capsys):
    write_run()
    os.makedirs("images/tiny")
    os.mkfifo("images/tiny/000100.png") if damage == "pipe" else open("images/tiny/000100.png", "w").write("secret")
    text = export_hub()
    assert "![" not in text and not os.path.exists(f"{FOLDER}/sample.png")
    assert "note: without a sample picture: images/tiny/000100.png" in capsys.readouterr().out


##############################
#   The folder
##############################


def test_an_edited_folder_is_never_replaced(folder):
    write_run()
    os.mkdir(FOLDER)
    export_hub()  # an empty one is welcome
    with open(f"{FOLDER}/README.md", "a") as file:
        file.write("edited")
    with pytest.raises(InputError, match=f"--output {FOLDER}: exists. Name a new folder"):
        export_hub()
    assert open(f"{FOLDER}/README.md").read().endswith("edited")
    export_hub("--output", "elsewhere/")
    assert sorted(os.listdir("elsewhere")) == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(InputError, match="--output no/folder: must be in an existing folder"):
        export_hub("--output", "no/folder")
    assert not [name for name in os.listdir("saved_models/tiny") + os.listdir(".") if name.startswith(".")]


def test_an_interrupted_export_leaves_nothing(folder, monkeypatch):
    write_run()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "card", stop)
    with pytest.raises(KeyboardInterrupt):
        export_hub()
    assert sorted(os.listdir("saved_models/tiny")) == ["latest.pth", "metrics.jsonl"]


def test_one_direction(folder):
    write_run()
    text = export_hub("--direction", "BA")
    assert "Directions: `BA` (B → A)." in text and "--direction AB" not in text
    assert json.load(open(f"{FOLDER}/config.json"))["generators"].keys() == {"BA"}
    assert "| | B → A |" in text and "A → B" not in text
    with pytest.raises(InputError, match="--direction AB: .*holds the generator of BA only"):
        load_generator(FOLDER, "AB")


def test_options_that_do_not_fit(folder):
    write_run()
    for words in (["--size", "32"], ["--benchmark"]):
        with pytest.raises(InputError, match="--format hub: writes a folder of its own"):
            export_hub(*words)
        with pytest.raises(InputError, match="--format safetensors: the weights are the same for every size"):
            export.main(["--checkpoint", LATEST, "--format", "safetensors", *words])
    with pytest.raises(InputError, match="--format hub: writes a folder of its own"):
        export.main(["--checkpoint", LATEST, "--format", "hub", "onnx"])


@pytest.mark.slow
def test_onnx_files_are_in_the_folder(folder, make_set, monkeypatch):
    monkeypatch.setattr(hub, "ONNX_PACKAGES", ("onnx",))
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make_set((32, 48))
    write_run(data_dir="data", noise_channels=2)
    text = export_hub()
    assert "- onnx\n" in text and "`G_AB` for ONNX Runtime, float32, one translation of each image" in text
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 44, 3), dtype=np.uint8)).save("photo.png")
    for direction in ("AB", "BA"):
        path, results = f"{FOLDER}/G_{direction}.onnx", []
        facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert (facts["direction"], facts["epoch"], facts["dataset_name"]) == (direction, "3", "tiny")
        assert json.loads(facts["trained_by"]) == {"version": "1.0", "commit": "0123456789ab", "torch": "2.9.1",
                                                   "date": MADE["date"], "data": {"A": 40, "B": 50}}  # fmt: skip
        assert b"alice" not in open(path, "rb").read() and "command" not in json.loads(facts["exported_by"])
        Exported(path)  # its checksum is right
        for checkpoint in (path, FOLDER):
            words = ["--direction", direction, "--input", "photo.png", "--output", "out.png", "--overwrite"]
            assert translate.main(["--checkpoint", checkpoint, "--device", "cpu", "--no-amp", *words]) == 0
            results.append(np.asarray(Image.open("out.png")).astype(int))
        assert np.abs(results[0] - results[1]).max() <= 1 and np.ptp(results[0]) > 0
    assert load_generator(FOLDER).network.noise_channels == 2  # the weights keep their noise


def test_without_images_there_is_no_onnx(folder, capsys, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr(hub, "ONNX_PACKAGES", ("onnx",))
    write_run(data_dir="data")
    assert "There is no ONNX file." in export_hub()
    assert "note: G_BA: the folder has no ONNX file of it: --images: required" in capsys.readouterr().out
