"""
The metadata and chapters of a video file: what of them still holds after a translation, and what the new file lost.
"""

from media.containers import open_file

OF_THE_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration")
# Apple's names of what other containers have, too
APPLE = {"location.iso6709": "location", "creationdate": "date", "make": "make", "model": "model", "title": "title"}


def general_metadata(metadata):
    """The metadata of a container, without what describes the container itself. Apple's names of the most important
    entries, such as the place, are joined by those that all containers know."""
    kept = {key: value for key, value in metadata.items() if key.lower() not in OF_THE_CONTAINER}
    for key, value in metadata.items():
        general = APPLE.get(key.lower().removeprefix("com.apple.quicktime."))
        if general and not any(other.lower() == general for other in kept):
            kept[general] = value
    return kept


def muxer_options(metadata, extension):
    """The options with which a container's muxer keeps such metadata."""
    # phones' own entries, com.apple.quicktime.model or com.android.version, have another box than titles in MP4
    has_own = extension in (".mp4", ".mov") and any(key.lower().startswith("com.") for key in metadata)
    return {"movflags": "use_metadata_tags"} if has_own else {}


def lost_metadata(reader, path):
    """-> what of the source's chapters and metadata the file at `path` does not hold, in words."""
    with open_file(path) as container:
        kept, n_chapters = {key.lower() for key in container.metadata}, len(container.chapters())
    wanted = {key.lower() for key in reader.metadata}
    # MP4 has such entries for each language, such as location-eng, and one without
    names = sorted(key for key in wanted - kept if key.split("-")[0] not in kept | (wanted - {key}))
    lost = ["metadata: " + ", ".join(names)] if names else []
    if (n := len(reader.chapters) - n_chapters) > 0:
        lost.insert(0, "1 chapter" if n == 1 else f"{n} chapters")
    return lost


def shifted(chapters, start):
    """Chapters with times that count from `start`, in seconds."""
    moved = []
    for chapter in chapters:
        shift = round(start / chapter["time_base"])
        moved.append(chapter | {"start": max(0, chapter["start"] - shift), "end": max(0, chapter["end"] - shift)})
    return moved
