"""`influence project`: the projected gradients of a corpus, as an index."""

from launch.running import projection

run = projection.project_and_tell
