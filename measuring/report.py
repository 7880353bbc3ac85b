"""
Writes a report of training runs: one HTML file that holds everything, for a browser or the attachment of a mail.

    python -m measuring.report horse2zebra                    # -> images/horse2zebra/report.html
    python -m measuring.report demo demo.1 --output both.html # two runs side by side

The report says what was trained on what, by which command and version, and what it cost. It shows the curves, the
sample grids over time, the health remarks, the results of evaluate.py, and test images before and after. What is not
there is left out: without the data set there are no test images. It names folders of
this machine, in the commands and options, and shows images of the data set.
"""

import argparse
import base64
import hashlib
import json
import os
import re

from PIL import Image

import cyclegan
from command_line.parser import argument_parser, between
from command_line.paths import check_name, sizes_in
from command_line.progress import duration
from command_line.run import run_script
from datasets import find_folder
from inference import load_translator
from measuring.curves import STYLE, draw_all, plots_of
from measuring.logs import conditions_of, read_log, seconds_taken
from measuring.results import BETTER, MEASURES, arrow, best_epochs, is_of_run, with_unit
from media.folders import ImageFiles, evenly_spaced
from media.images import load_image
from media.reading import check_regular
from media.sheets import GRID, data_uri
from training.options import as_typed
from utils import InputError, whole_file
from variants.stored_options import check_options, confirm_paths, read_record

N_GRIDS, N_TESTS = 24, 4  # sample grids that are shown, and test images of each direction
ARROWS = {"AB": "A → B", "BA": "B → A"}
LIMIT = 15_000_000  # bytes of a report; above it, pictures are made smaller


def get_parser():
    parser = argument_parser("Write a report of training runs.", "python -m measuring.report NAME [NAME ...] [options]")
    parser.add_argument("names", nargs="+", metavar="NAME", help="name of a run, a folder in saved_models")
    parser.add_argument(
        "--output", metavar="FILE", help="HTML file; it names folders and commands (default: images/NAME/report.html)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="folder of the data sets (default: as trained)")
    parser.add_argument("--smooth", type=between(0), default=200, help="number of steps to average losses over")
    return parser


##############################
#   Pictures
##############################


def read_pictures(titled):
    """[(title, path)] -> [(title, PIL image)]; without those that cannot be read, which are named"""
    found = []
    for title, path in titled:
        try:
            found.append((title, Image.fromarray(load_image(path, 3))))
        except InputError as error:
            print(f"note: {error}")
    return found


def sample_grids(name):
    """-> list of (step, PIL image), evenly spaced over the training"""
    folder = os.path.join("images", name)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted((name for name in names if re.fullmatch(r"[0-9]+\.png", name)), key=lambda name: int(name[:-4]))
    shown = evenly_spaced(found, N_GRIDS, with_last=True)
    return read_pictures([(int(file[:-4]), os.path.join(folder, file)) for file in shown])


def case_sheets(name):
    """-> list of (title, PIL image) of the sheets of best and worst cases that evaluate.py has written last"""
    folder, sheets = os.path.join("images", name), []
    for direction in ("AB", "BA"):
        found = [f for f in os.listdir(folder) if f.startswith("evaluate_") and f.endswith(f"_{direction}.png")] \
            if os.path.isdir(folder) else []  # fmt: skip
        if found:
            newest = max(found, key=lambda file: os.path.getmtime(os.path.join(folder, file)))
            sheets.append((ARROWS[direction], os.path.join(folder, newest)))
    return read_pictures(sheets)


def before_and_after(name, options, data_dir):
    """Translates a few test images now -> {direction: [(file name, image, translation)]}, both PIL images"""
    checkpoint, found = f"saved_models/{name}/latest.pth", {}
    if not os.path.exists(checkpoint):
        return found
    try:  # the report shows these images, so a file must not choose any folder
        confirm_paths(options, {"data_dir": data_dir}, f"saved_models/{name}/options.json")
    except InputError as error:
        print(f"note: no test images: {error}")
        return found
    root = os.path.join(data_dir or options.get("data_dir") or "data", str(options.get("dataset_name")))
    for direction in ("AB", "BA"):
        try:
            files = ImageFiles(find_folder(root, "test", direction[0]))
            size = min((options[side] for side in ("img_height", "img_width") if side in options), default=None)
            translate = load_translator(checkpoint, direction, device="cpu", size=size)
            chosen = evenly_spaced(files, N_TESTS, with_last=True)
            found[direction] = [pair_of(path, translate) for path in chosen]
        except InputError as error:
            print(f"note: no test images {arrow(direction)}: {error}")
    return found


def pair_of(path, translate):
    """-> (file name, PIL image, its translation)"""
    image = Image.fromarray(load_image(path, 3))
    translation = translate(image)
    return os.path.basename(path), image.resize(translation.size), translation


##############################
#   Facts
##############################


def read_options(name):
    """-> what options.json says of a run; without its options, and with a note, if these are damaged or missing"""
    path = f"saved_models/{name}/options.json"
    record = read_record(path)
    try:
        check_options(record["options"], path, cyclegan.get_parser())
    except InputError as error:
        print(f"note: {error}")
        record["options"] = {}
    if not record["options"]:
        print(f"note: {path} cannot be used")
    return record


def facts_of(name, record, records):
    """-> list of (what, value) on a run, all text"""
    options, data = record["options"], record.get("data")
    data = data if isinstance(data, dict) else {}
    facts = []
    if data.keys() >= {"folder", "A", "B"}:
        facts.append(("data", f"{data['folder']}: {data['A']} images of A, {data['B']} of B"))
    facts.append(("size", f"{options.get('img_width', '?')} × {options.get('img_height', '?')} pixels"))
    facts.append(("steps", f"{int(records[-1]['step']):,}"))
    commands = record.get("commands")
    commands = commands if isinstance(commands, list) else []
    facts += [(f"command {i}" if i else "command", str(text)) for i, text in enumerate(commands)][-3:]
    defaults = vars(cyclegan.get_parser().parse_args([]))
    known = {key: value for key, value in options.items() if key in defaults}
    changed = as_typed(argparse.Namespace(**defaults | known), defaults)
    facts.append(("options other than the defaults", changed))
    made = [f"{what} {record[what]}" for what in ("version", "commit", "torch", "date") if record.get(what)]
    facts.append(("made by", ", ".join(made) or "unknown"))
    return facts + costs_of(name, record, records)


def costs_of(name, run, records):
    """-> list of (what, value): the time, memory and disk space of a run"""
    seconds = seconds_taken(run, records)
    memory = [record["memory_gib"] for record in records if "memory_gib" in record]
    folder = f"saved_models/{name}"
    sizes = sizes_in(folder)
    costs = [("training time", duration(seconds))] if seconds else []
    costs += [("memory", f"{max(memory):.1f} GiB")] if memory else []
    return costs + [("files", f"{len(sizes)}, {sum(sizes) / 1e6:.0f} MB in {folder}")]


def measured_of(name, dataset_name):
    """-> ({epoch: {direction: {measure: value}}} of this run on its data set, the newest lines of metrics.jsonl for each
    epoch; {epoch: newest line}). Lines of one epoch are only put together if they were measured in the same way."""
    path, history, newest = f"saved_models/{name}/metrics.jsonl", {}, {}
    if not os.path.isfile(path):
        return history, newest
    check_regular(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
                if not is_of_run(record, dataset_name):
                    continue
                results = {
                    str(d): {m: float(v) for m, v in values.items() if m in MEASURES and isinstance(v, (int, float))}
                    for d, values in record["results"].items() if d in ("AB", "BA")
                }  # fmt: skip
                epoch = int(record["epoch"] or 0)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                continue
            last = newest.get(epoch)
            is_same = last is None or all(last.get(key) == record.get(key) for key in ("size", "protocol", "step"))
            history[epoch], newest[epoch] = (history.get(epoch, {}) if is_same else {}) | results, record
    return history, newest


def how_measured(record):
    """A line on what evaluate.py measured, from a line of metrics.jsonl, whose fields may be missing or of any type"""
    parts = [
        f"{key} {record[key]}" for key in ("checkpoint", "epoch", "step") if isinstance(record.get(key), (str, int))
    ]
    counts, size, missing = record.get("counts"), record.get("size"), record.get("missing")
    if isinstance(counts, dict):
        parts.append(", ".join(f"{n} of {name}" for name, n in counts.items()))
    if isinstance(size, list) and len(size) == 2:
        parts.append(f"{size[1]} × {size[0]} pixels")
    parts.append(str(record.get("time", ""))[:10])
    if isinstance(missing, dict) and missing:
        parts.append("not measured: " + ", ".join(missing))
    return "; ".join(part for part in parts if part)


def results_of(history):
    """-> (rows of a table: (measure, A -> B, B -> A) of the last epoch, lines on the best epochs)"""
    if not history:
        return [], []
    results, rows = history[max(history)], []
    for measure, (title, unit, higher) in MEASURES.items():
        values = [results.get(direction, {}).get(measure) for direction in ("AB", "BA")]
        if any(value is not None for value in values):
            cells = ["" if value is None else decimal(measure, value) for value in values]
            rows.append((with_unit(title, unit) + BETTER[higher], *cells))
    return rows, [with_arrows(line) for line in best_epochs(history)] if len(history) > 1 else []


def decimal(measure, value):
    """A value of MEASURES with as many decimals as others of its kind, so that columns can be compared"""
    return (
        f"{value:.2f}" if measure.endswith(("_l1", "_psnr")) or measure.startswith(("fid", "kid")) else f"{value:.4f}"
    )


def with_arrows(text):
    return text.replace("A -> B", ARROWS["AB"]).replace("B -> A", ARROWS["BA"])


##############################
#   The report
##############################


def describe_run(name, records, opt):
    """-> dict for the template, with PIL images, see embedded"""
    record = read_options(name)
    history, newest = measured_of(name, record["options"].get("dataset_name"))
    rows, best = results_of(history)
    measured = how_measured(newest[max(history)]) if history else ""
    return {
        "name": name, "facts": facts_of(name, record, records), "grids": sample_grids(name),
        "health": [(with_arrows(condition), steps[:5], with_arrows(advice)) for condition, steps, advice in conditions_of(records)],
        "rows": rows, "measured": measured, "best": best, "sheets": case_sheets(name),
        "pairs": {ARROWS[d]: pairs for d, pairs in before_and_after(name, record["options"], opt.data_dir).items()},
    }  # fmt: skip


def embedded(run, width):
    """A dict of describe_run with data URIs instead of PIL images. width: of a test image; grids and sheets are wider"""
    return run | {
        "grids": [(step, data_uri(image, 4 * width)) for step, image in run["grids"]],
        "sheets": [(title, data_uri(image, 4 * width)) for title, image in run["sheets"]],
        "pairs": {
            direction: [(file, data_uri(before, width), data_uri(after, width)) for file, before, after in pairs]
            for direction, pairs in run["pairs"].items()
        },
    }


def write_report(opt):
    """Writes the report of the runs opt.names -> its path"""
    try:
        import jinja2
        import markupsafe  # comes with it
    except ImportError:
        raise InputError("measuring.report: requires Jinja2: pip install jinja2")
    logs = {}
    for name in opt.names:
        logs[name], n_skipped = read_log(f"saved_models/{name}/log.jsonl")
        if n_skipped:
            print(f"note: saved_models/{name}/log.jsonl: skipped {n_skipped} damaged lines")
    path = opt.output or os.path.join("images", opt.names[0], "report.html")
    folder = os.path.dirname(os.path.abspath(__file__))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    template, plots = environment.get_template("report.html"), draw_all(plots_of(logs, opt.smooth), opt.smooth)
    with open(os.path.join(folder, "report.js"), encoding="utf-8") as file:
        script = file.read()
    # the page may run this script only: it holds texts from files, and is made to be passed on
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    runs = [describe_run(name, records, opt) for name, records in logs.items()]
    for width in (320, 200, 120):
        text = template.render(runs=[embedded(run, width) for run in runs], curves=markupsafe.Markup(plots), style=markupsafe.Markup(STYLE),
                               title=", ".join(opt.names) + ": training report", columns=GRID, script=markupsafe.Markup(script), script_hash=script_hash)  # fmt: skip
        if len(text) <= LIMIT:
            break
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def main(argv=None):
    opt = get_parser().parse_args(argv)
    for name in opt.names:
        check_name("NAME", name)
    path = write_report(opt)
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, opens in any browser")


if __name__ == "__main__":
    run_script(main)
