"""The ground: files near and far, checksums, fingerprints, locks."""
