"""Training: ``vidnoise train CONFIG`` (extra ``[train]``)."""
