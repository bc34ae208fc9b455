"""What the operations share: registration with torch, compilation and its cache, tiles, slopes of spikes."""
