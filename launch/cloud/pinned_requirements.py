"""Versions that are installed here, as constraints for containers.

python -m launch.cloud.pinned_requirements > launch/deploy/constraints.txt
"""

from importlib import metadata

from packaging import requirements

PACKAGE = 'influence-pipeline'
EXTRAS = ('dataflow', 'examples')


def closure() -> dict[str, str]:
  """Version by name of all that the package and its extras need."""
  found: dict[str, str] = {}
  waiting = [(PACKAGE, extra) for extra in ('', *EXTRAS)]
  seen = set()
  while waiting:
    name, extra = waiting.pop()
    if (name, extra) in seen:
      continue
    seen.add((name, extra))
    distribution = metadata.distribution(name)
    if name != PACKAGE:
      found[name] = distribution.version
    for text in distribution.requires or ():
      need = requirements.Requirement(text)
      if need.marker is None or need.marker.evaluate({'extra': extra}):
        needed = need.name.lower().replace('_', '-')
        waiting += [(needed, more) for more in ('', *need.extras)]
  return dict(sorted(found.items()))


def main() -> None:
  print(
    '# Made by python -m launch.cloud.pinned_requirements, on Linux, x86-64.'
  )
  for name, version in closure().items():
    print(f'{name}=={version}')


if __name__ == '__main__':
  main()
