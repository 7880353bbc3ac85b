"""
Named sets of options, for --preset and --recipe. Edit them here, or add one.

The parser's defaults in cyclegan.py are the preset `paper`. If you edit a default there, it counts, whatever a preset
says: a preset only changes options whose default is still the paper's.
"""

PAPER = dict(img_height=256, img_width=256, n_residual_blocks=9, ngf=64, ndf=64, upsample="transpose", n_epochs=200,
             decay_epoch=None, lr=0.0002, sample_interval=500, n_iters=None, ema=0.0, diffaugment=False, b2=0.999,
             lambda_cyc=10.0, lambda_id=5.0, spectral_norm=False, lambda_gp=0.0, gp_at="real", generator="resnet",
             num_downs=8, channels=3, channels_A=None, channels_B=None, dims=2, img_depth=32)  # fmt: skip

# For a few dozen of your own photos on two CPU cores: small networks at 128 x 128, and a number of steps that does not
# depend on the number of photos. --diffaugment, because networks memorise so few; --ema averages out the last oscillations
LAPTOP = dict(img_height=128, img_width=128, n_residual_blocks=4, ngf=32, ndf=32, upsample="nearest", n_iters=3_000,
              ema=0.999, diffaugment=True, sample_interval=250)  # fmt: skip

# The demo's scenes are small, and so are its networks. With so few epochs, a long decay helps
DEMO = dict(img_height=64, img_width=64, n_residual_blocks=3, ngf=24, ndf=32, upsample="nearest", n_epochs=6,
            decay_epoch=2, lr=0.0005, sample_interval=100)  # fmt: skip

# Small networks in 3-D for two CPU cores, and what the data set demo_volumes is trained with, see get_data/volumes.py
VOLUMES = dict(dims=3, channels=1, img_height=32, img_width=32, img_depth=24, n_residual_blocks=2, ngf=8, ndf=8,
               upsample="nearest", n_epochs=10, decay_epoch=5, lr=0.001, sample_interval=100)  # fmt: skip

# The data sets that come with the project, see get_data/embedded.py: small networks, 5 to 18 minutes on one core. For
# icons, no identity loss and this rate were the best (docs/results.md#recipes). For flat tiles they are not, and a ResNet
# with instance norm forgets the colour of a tile, which a U-Net passes on
ICONS = DEMO | dict(n_epochs=200, decay_epoch=None, n_iters=3_000, lr=0.0008, lambda_id=0.0, sample_interval=500)
EARTH = ICONS | dict(generator="unet", num_downs=5, lr=0.0002, lambda_id=5.0, ema=0.999)
LANDSAT = EARTH | dict(n_iters=1_500, lambda_id=0.0, channels_A=3, channels_B=6)

# Sets of options for --recipe, which changes how networks are trained, at any size. A preset and a recipe can be combined
RECIPES = {
    # the settings of UVCGAN v2 (Torbunov et al., 2023, arXiv:2303.16280), with the paper's generator
    "uvcgan": dict(lr=0.0001, b2=0.99, lambda_cyc=5.0, lambda_id=2.5, ema=0.9999, spectral_norm=True, lambda_gp=4.0,
                   gp_at="mix"),
}  # fmt: skip

PRESETS = {"laptop": LAPTOP, "paper": PAPER, "demo": DEMO, "volumes": VOLUMES}  # for --preset
OWN = {"demo": DEMO, "demo_volumes": VOLUMES, "icons": ICONS, "earth": EARTH, "landsat": LANDSAT}  # of these data sets


def own_preset(dataset_name, data_dir):
    """The preset of a data set that is trained without --preset -> its name in OWN, or "paper". A folder of the user's
    that is named like a data set of the project has none."""
    from get_data.embedded import is_ours

    is_drawn = dataset_name in ("demo", "demo_volumes")
    return dataset_name if is_drawn or is_ours(dataset_name, data_dir) else "paper"


def preset_options(preset, recipe, defaults, given):
    """The defaults that a preset and a recipe change -> {name: value}

    preset:   a name in PRESETS or OWN
    recipe:   a name in RECIPES, or None. It counts more than the preset
    defaults: {name: value}, the parser's
    given:    {name: value}, what was typed. A number of epochs, typed or edited, replaces the preset's number of steps
    """
    values = (PRESETS | OWN)[preset] | RECIPES.get(recipe, {})
    values = {name: value for name, value in values.items() if defaults[name] == PAPER[name]}
    if given.get("n_epochs") or given.get("progressive") or defaults["n_epochs"] != PAPER["n_epochs"]:
        values.pop("n_iters", None)
    if given.get("slices"):
        values.pop("dims", None)  # these are the two ways to train on volumes
    return values
