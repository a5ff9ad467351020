"""jdiff: what does a denoiser's architecture make a diffusion model generate?"""

__version__ = "0.1.0"
