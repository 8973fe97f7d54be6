"""Measuring: metrics, the protocols, and the peers we compare with (extra ``[bench]``)."""
