"""
Image and video files: finding, reading and writing them.

    files      reading and writing checkpoints; reading: what all readers share
    images     decode an image for training, as 8-bit pixels
    folders    list the images of a data set's folder; layouts says what is wrong with a data set's folders
    domain     the images of one domain; survey checks them before training
    depth      whether an image has more than 8 bits; limits: whether it is too large; frames: which of its frames count
    colours    profiles, gamma and CMYK: conversion to sRGB
    metadata   EXIF, XMP, IPTC and the like
    arrays     16-bit, float and multi-channel images: TIFF, .npy, and PNG, PPM and JPEG 2000; array_writer writes them.
               tiff and tiff_writer do TIFF, png the bytes of PNG; decoded is what decoders return
    pictures   decode an image for translation, with all that its file holds; picture_writer writes it back
    masks      which part of an image to translate
    video      translate a video; video_files decodes it, video_writer encodes it, tracks copies its sound and
               subtitles, video_metadata keeps the rest, hdr converts HDR to SDR, flicker measures and reduces flicker
    camera     translate what a camera sees, live
    containers which files are videos, and opening them
    volumes    the volumes of one domain, for --dims 3; volume_files reads and writes them: .npy, NIfTI, TIFF
    inputs     find the files to translate; targets decides where each result goes
    sheets     captioned images on one sheet

May import utils and command_line.
"""
