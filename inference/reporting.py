"""
Carries out all jobs of translate.py: shows the progress, and collects what failed.
"""

import time

from command_line.errors import explain
from command_line.progress import Progress
from command_line.run import out_of_memory
from inference.jobs import translate_pictures, translate_video_file, write_features
from media.containers import is_camera, is_video
from utils import InputError


class Report:
    """Counts what is written, collects what failed, and shows the progress.

    n_images: number of images to translate. Videos come after them, and show their frames instead
    noun:     what images are called: "volumes" for those
    failures: list of messages, on what failed before
    notes:    list of messages, on what was found before
    """

    def __init__(self, n_images, failures, notes, noun="images"):
        self.n_images, self.failures, self.notes, self.n_written = n_images, list(failures), list(notes), 0
        self.noun = noun
        self.progress, self.started = Progress(), time.monotonic()

    def written(self):
        self.n_written += 1
        self.show()

    def failed(self, message):
        self.failures.append(message)
        self.show()

    def note(self, message):
        self.notes.append(message)

    def show(self):
        done = self.n_written + len(self.failures)
        if done <= self.n_images:
            self.progress.tick(done, self.n_images, self.noun, self.started)


def translate_one_video(source, target, translator, report, size, opt):
    """Translates a video, and prints what was written."""
    progress, started = Progress(), time.monotonic()

    def show(done, total):
        progress.tick(done, total, "frames", started)

    if is_camera(source):
        print("press Ctrl-C to stop", flush=True)
    try:
        result = translate_video_file(
            source, target, translator, size=size, mask=opt.mask, smooth=opt.smooth, progress=show
        )
    except InputError as error:
        progress.end_line()
        return report.failed(str(error))
    progress.end_line()
    print("\n".join(result.describe(target)))
    if result.broken:
        return report.failed(f"{source}: broken ({result.broken}); its first {result.frames} frames are in {target}")
    report.written()


def translate_all(plan, translator, choose_sample, report, size, opt):
    """Translates all jobs of a Plan -> True if Ctrl-C stopped it. choose_sample: called with the number of the sample that
    comes next, or None"""
    try:
        for number, jobs in plan.rounds():
            choose_sample(number)
            videos = [job for job in jobs if is_video(job[1])]
            images = [job for job in jobs if not is_video(job[1])]
            if opt.features:
                write_features(images, translator, report, size=size)
            else:
                translate_pictures(images, translator, report, size=size, mask=opt.mask, n_threads=opt.n_cpu)
            report.progress.end_line()
            for source, target in videos:
                translate_one_video(source, target, translator, report, size, opt)
    except KeyboardInterrupt:
        report.progress.end_line()
        return True
    except OSError as error:  # a full disk
        report.progress.end_line()
        report.failures.append(f"{explain(error)}; stopped here. Continue with --resume")
    return False


def translate_all_volumes(plan, translator, report):
    """translate_all for generators of volumes"""
    from inference.volumes import translate_file

    try:
        for source, target in plan.jobs:
            try:
                report.notes += translate_file(source, target, translator)
                report.written()
            except InputError as error:
                report.failed(str(error))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                report.failed(f"{source}: out of memory. Try a smaller --tile")
    except KeyboardInterrupt:
        return True
    except OSError as error:  # a full disk
        report.failures.append(f"{explain(error)}; stopped here. Continue with --resume")
    finally:
        report.progress.end_line()
    return False
