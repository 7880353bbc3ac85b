"""
Trains generators before the adversarial training begins. `python -m pretraining.inpainting` writes a checkpoint for
`cyclegan.py --start_from`.

May import cyclegan and all below it.
"""
