"""Evaluation of quality: metrics, protocols, and the peers we compare with (extra ``[bench]``)."""
