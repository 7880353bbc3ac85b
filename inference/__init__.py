"""
Applying trained generators to images of any size, from any kind of checkpoint.

    from PIL import Image
    from inference import load_translator
    translate = load_translator("saved_models/horse2zebra/latest.pth", direction="AB")
    translate(Image.open("horse.jpg")).save("zebra.jpg")

    load              checkpoint -> generator, with what its file says about it (generator); exported reads the files of
                      export.py
    translator        generator -> function from pixels to pixels; bands handles large images, detail --keep_size
    image_translator  load_translator, for use from Python
    volumes           volumes and their files, for --dims 3 and --slices
    samples           several translations of one image
    jobs              files -> translated files, for translate.py; features draws what the layers of a generator see

May import utils, command_line, media, models, datasets and variants. Does not import training.
"""


def load_translator(
    checkpoint,
    direction=None,
    *,
    device=None,
    size=None,
    keep_size=False,
    strength=1.0,
    mask=None,
    mix=None,
    tile=2048,
    batch_size=None,
    amp=None,
    compile=False,
    trust=False,
    sample=None,
    seed=0,
):
    """Loads a trained generator -> ImageTranslator, a function from images to images. Its pixels are those that
    translate.py writes with the same options.

        translate = load_translator("latest.pth")
        zebra = translate(Image.open("horse.jpg"))    # PIL image -> PIL image
        zebras = translate(frames)                    # uint8 or uint16 (N, H, W, C) -> the same
        zebra = translate(horse, mask=mask)           # translate only where the mask is white

    checkpoint: path of a full checkpoint, a generator, or an exported generator; with `mix`, a list of two
    direction:  "AB" or "BA", the generator to take from a full checkpoint. None takes AB
    device:     "cuda", "cuda:1", "mps" or "cpu". None takes the best available
    size:       resize images first: length of the shorter side, or (width, height)
    keep_size:  with `size`, enlarge the result again, with the detail of the input, see inference.detail
    strength:   0 returns the input, 1 the translation
    mask:       mask for all images, see ImageTranslator
    mix:        share of the second checkpoint's translation in the result, 0 to 1
    tile:       images of more than tile^2 pixels are translated in bands, which takes less memory
    batch_size: number of images per batch. None for 16 on a GPU and 1 on a CPU
    amp:        True computes in bfloat16; None does so where the device supports it, for images of 8 bits
    sample:     1 for what translate.py --n_samples writes as NAME_1.png, and so on. None for the one translation
    seed:       random seed of the samples
    trust:      load .pt2 and .ts checkpoints, which are programs: True runs what their author wrote
    compile:    use torch.compile, which pays off from a few hundred images of one size

    Raises utils.InputError, a ValueError, if a file or an option cannot be used. Messages name options as translate.py
    does, such as --mix.
    """
    from inference.image_translator import open_translator  # imports PyTorch, so not at the top

    return open_translator(
        checkpoint, direction, device=device, size=size, keep_size=keep_size, strength=strength, mask=mask, mix=mix,
        tile=tile, batch_size=batch_size, amp=amp, compile=compile, trust=trust, sample=sample, seed=seed,
    )  # fmt: skip
