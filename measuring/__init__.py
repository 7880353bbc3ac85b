"""
Quality and speed of trained generators.

    evaluation  evaluates checkpoints, for evaluate.py: everything below, in order
    data        which images to measure on: test images, pairs, label images
    images      loads them, resized to one size
    metrics     the formulas: FID, KID, LPIPS, SSIM, PSNR, L1
    labels      the scores of label images, with the classes of palettes
    diversity   how much several translations of one image differ
    scores      collects the measures of one direction over all batches
    results     the table, the curves, the sheets of the best and worst cases
    volumes     evaluates generators of volumes
    attribution which pixels decide on a score, and what the stages of a generator respond to
    logs        reads the logs of runs, and the time that runs take; plot draws their curves, curves does so as SVG
    timing      time, memory and operation counts

May import cyclegan.py and everything below it.
"""
