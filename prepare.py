# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2", "imagehash>=4.3"]
# ///
"""
Makes a data set from your own photos and videos, or looks at one that is there.

    python prepare.py summer2rain --A photos/summer/ --B photos/rain/   # -> data/summer2rain
    python prepare.py summer2rain --check                               # only look

Searches folders at any depth, takes frames from videos, turns photos upright and makes them as small as training needs.
Leaves out what is broken, too small, empty or a duplicate. Sets test images aside. The originals are only read. Ends with
advice, the command to train, and a report with pictures: data/NAME/report.html. An interrupted run is continued by the
same command.

Requires imagehash, and PyAV for videos: pip install imagehash av
"""

import contextlib
import os
import shutil
import statistics

from command_line.parser import argument_parser, between
from command_line.paths import check_name, is_inside
from command_line.run import run_script
from command_line.terminal import say
from datasets import find_folder
from get_data.collecting import REASONS, LeftOut, collect, search, shown
from get_data.judging import describe, headline, judge, n_images, size_for
from get_data.looking import How, require_imagehash
from get_data.preparing import choose, finish, look_at_all, put_together, split, unfinished_set, without_other_kinds
from get_data.report import write_report
from get_data.training_command import crop_of, training_command
from media.containers import is_video
from media.folders import count_of
from media.limits import open_pil
from utils import InputError

DEFAULT_SIZE = 286
MOST_NAMED = 3  # files that the terminal names for each reason


def get_parser():
    parser = argument_parser("Make a data set from photos and videos, or look at one.",
                             "python prepare.py NAME --A PATH [PATH ...] --B PATH [PATH ...] [options]\n"
                             "       python prepare.py NAME --check [options]")  # fmt: skip
    add = parser.add_argument
    # fmt: off
    add("name", metavar="NAME", help="name of the data set, a folder in --data_dir")
    add("--A", nargs="+", metavar="PATH", help="folders and files of domain A: images and videos")
    add("--B", nargs="+", metavar="PATH", help="those of domain B")
    add("--check", action="store_true", help="look at a data set that is there; only the report is written")
    add("--data_dir", default="data", metavar="DIR", help="folder of the data sets")
    add("--size", type=between(36, 16384), help="shorter side to shrink to (default: 286); training crops 256/286 of it")
    add("--every", type=between(0.001), default=1.0, metavar="SECONDS", help="time between two frames of a video")
    add("--n_test", type=between(0), help="test images of each domain (default: a tenth, at most 100)")
    add("--seed", type=between(0), default=0, help="decides which images are for testing")
    add("--follow_links", action="store_true", help="also use what symbolic links inside the folders lead to")
    add("--n_cpu", type=between(1, 256), default=min(8, os.cpu_count() or 1), help="threads that read images")
    add("--report", metavar="FILE", help="HTML file that --check writes (default: report.html in the data set, or check.html)")
    # fmt: on
    return parser


def check_options(opt):
    """Raises InputError for options that do not go together."""
    check_name("NAME", opt.name)
    if not opt.name.isprintable():
        raise InputError(f"NAME {opt.name!r}: has characters that cannot be printed")
    if opt.check and (opt.A or opt.B):
        raise InputError(
            "--check: looks at a data set that is there. Omit --A and --B, or omit --check to make a new one"
        )
    if not opt.check and not (opt.A and opt.B):
        raise InputError(
            "--A and --B: name the photos of both domains, or use --check to look at a data set that is there"
        )
    if opt.report and not opt.check:
        raise InputError("--report: a new data set has its report in its folder. Use the option with --check")
    if opt.report and not opt.report.lower().endswith(".html"):
        raise InputError(f"--report {shown(opt.report)}: is a page, and its name must end in .html")
    require_imagehash()


def make(opt, root):
    """Makes a data set -> (list of Facts, list of LeftOut, list of Finding). Raises InputError."""
    real = {side: [os.path.realpath(path) for path in paths] for side, paths in (("A", opt.A), ("B", opt.B))}
    for a in real["A"]:
        for b in real["B"]:
            if is_inside(a, b) or is_inside(b, a):
                raise InputError(f"--A {shown(a)} and --B {shown(b)}: are the same, or one is inside the other")
    opt.size = opt.size or DEFAULT_SIZE
    settings = {"A": [ascii(path) for path in real["A"]], "B": [ascii(path) for path in real["B"]],
                **{key: getattr(opt, key) for key in ("size", "every", "n_test", "seed", "follow_links")}}  # fmt: skip
    avoid = [root, f"{root}.unfinished"]
    sources, left = [], []
    for side, paths in (("A", opt.A), ("B", opt.B)):
        found, skipped = collect(side, paths, avoid, opt.follow_links)
        if not found:
            raise InputError(f"--{side} {' '.join(map(shown, paths))}: holds no images and no videos")
        sources, left = sources + found, left + skipped
    with unfinished_set(root, settings) as unfinished:
        how = How(opt.size, crop_of(opt.size), opt.every, unfinished.images)
        facts, skipped = choose(sources, look_at_all(sources, how, unfinished, opt.n_cpu))
        facts, left = without_other_kinds(facts, left + skipped)
        check_some(facts, left, unfinished.folder)
        split(facts, opt.seed, opt.n_test)
        findings = judge(facts, left, opt.size)
        put_together(unfinished, facts)
        command = training_command(facts, findings, opt.name, opt.data_dir, opt.size)
        write_report(os.path.join(unfinished.set, "report.html"), opt.name, facts, left, findings, command, opt.size,
                     lambda one: os.path.join(unfinished.set, one.made))  # fmt: skip
        finish(unfinished)
    return facts, left, findings


def look(opt, root):
    """Looks at a data set -> (list of Facts, list of LeftOut, list of Finding). Raises InputError."""
    how, facts, left = None, [], []
    for mode in ("train", "test"):
        sources = []
        for side in "AB":
            try:
                folder = find_folder(root, mode, side)
            except InputError:
                if mode == "train":
                    raise
                continue  # test images are optional
            search(side, folder, [], True, sources, left, set())
        left += [LeftOut(one.side, one.path, "video") for one in sources if is_video(one.path)]
        sources = [one for one in sources if not is_video(one.path)]
        opt.size = opt.size or usual_size([one.path for one in sources])  # by the training images
        how = how or How(opt.size, crop_of(opt.size), opt.every)
        found, skipped = choose(sources, look_at_all(sources, how, None, opt.n_cpu))
        for one in found + [one for one in skipped if one.reason in ("exact", "near", "empty")]:
            one.split = mode
        facts, left = facts + found, left + skipped
    check_some(facts, left)
    return facts, left, judge(facts, left, opt.size, only_looking=True)


def usual_size(paths, n=64):
    """The --size that a data set was probably made with: the usual shorter side of its images, at most 286"""
    sides = []
    for path in paths[:: -(-len(paths) // n) or 1]:
        with contextlib.suppress(Exception), open_pil(path) as image:  # broken files and arrays are reported later
            sides.append(min(image.size))
    return max(36, min(DEFAULT_SIZE, int(statistics.median(sides)))) if sides else DEFAULT_SIZE


def check_some(facts, left, unfinished=None):
    """Raises InputError if no image of a domain can be used. unfinished: folder of a new data set, which is deleted"""
    for side in "AB":
        if not any(one.side == side for one in facts):
            print_left_out(left, "left out" if unfinished else "found")
            size, n = size_for([one for one in left if one.side == side])
            way_out = f". --size {size} uses {count_of(n, 'image')} that {'is' if n == 1 else 'are'} too small now"
            if unfinished:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise InputError(f"no image of domain {side} can be used{way_out if n else ''}")


def print_left_out(left, verb="left out"):
    """A line for each reason, with the names of a few files"""
    for reason, text in REASONS.items():
        those = [one for one in left if one.reason == reason]
        if those:
            print_group(verb, text, those)


def print_group(verb, text, those: list[LeftOut]):
    names = [shown(one.path) + (f" ({shown(one.why)})" if one.why else "") for one in those[:MOST_NAMED]]
    more = f" and {len(those) - MOST_NAMED} more" if len(those) > MOST_NAMED else ""
    say(f"{verb}: {len(those)} {text}: {', '.join(names)}{more}")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    check_options(opt)
    root = os.path.join(opt.data_dir, opt.name)
    report = opt.report or os.path.join(root, "report.html")
    if opt.check and not opt.report and os.path.lexists(report):
        report = os.path.join(root, "check.html")  # the other one says what was left out
    facts, left, findings = (look if opt.check else make)(opt, root)
    command = training_command(facts, findings, opt.name, opt.data_dir, opt.size)
    print_left_out(left, "found" if opt.check else "left out")
    for side in "AB":
        n_train, n_test = n_images(side, facts, left)
        say(f"{side}: {n_train} training and {n_test} test images")
    say(headline(findings))
    for finding in findings:
        say(f"{'problem' if finding.is_problem else 'note'}: {describe(finding)}")
    if opt.check:  # after the findings, because the folder of the data set may be read-only
        write_report(report, opt.name, facts, left, findings, command, opt.size, lambda one: one.path, True)
    say(f"report with pictures: {shown(report)}")
    laptop = training_command(facts, findings, opt.name, opt.data_dir, opt.size, "laptop")
    say(f"to train on it without a GPU:\n    {laptop}\nwith a GPU:\n    {command}")


if __name__ == "__main__":
    run_script(main)
