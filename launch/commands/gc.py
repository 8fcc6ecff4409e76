"""`influence gc`: deletes generations and files that no reader needs."""

from launch.running import index_upkeep

run = index_upkeep.collect_garbage
