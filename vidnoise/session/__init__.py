"""One stream's session: what is remembered of it, how strongly it is denoised, and where it is cut."""
