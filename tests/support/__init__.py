"""What several tests share: clips, networks, fakes, servers, tolerances."""
