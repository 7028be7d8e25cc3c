"""Synthetic studies: four contrasts of a brain with a tumour, made from label maps, without images.

Given anatomical label maps of heads and tumour masks, every seed is another study: another anatomy
(affine and elastic deformation, left-right flips), another tumour (mask, place, size, kind), pushed
tissue around it, and four images whose contrasts, textures, bias fields, resolutions and faults are
drawn anew. The approach is SynthSeg's (Billot et al. 2023, Medical Image Analysis 86): a Gaussian
mixture over an anatomical map and a chain of image faults. It differs where the contrasts are
known: tissue means are drawn around those of T1, T1ce, T2 and FLAIR instead of anywhere at all.

Frame: arrays (X, Y, Z) in orientation "SPL" at 1 mm, as the default recipe trains. Images are in
units of the healthy brain's standard deviation until they are normalised like any other study.
"""
