"""cgroupfs on every layout: `detect` finds the mounts, `v1` and `v2` know what differs, `tree` drives both."""
