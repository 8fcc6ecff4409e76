"""Everything that runs on Apache Beam, and the engines for it."""
