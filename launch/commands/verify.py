"""`influence verify`: reads every byte of an index and checks it."""

from launch.running import index_upkeep

run = index_upkeep.verify_index
