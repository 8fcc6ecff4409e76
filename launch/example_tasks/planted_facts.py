"""Made-up facts about made-up names, each told by several sentences.

A question is the beginning of a sentence, which the answer completes. Half of
the sentences of a fact share the names with it. The other half tell the fact by
other forms of them, such as "Velkorish" for "Velkora", and have no word in
common with the question: whoever counts words cannot find them, while the
subwords of a model are the same.

Of every other person the completed questions stand among the sentences, so that
a model learns how they go on; the others are asked.
"""

from collections.abc import Iterator, Sequence
import itertools
from typing import Any, NamedTuple

import numpy as np

# Names are two of these and an ending.
_ONSETS = ('Vel', 'Tam', 'Ost', 'Zur', 'Bren', 'Quil', 'Mor', 'Fae', 'Jast')
_MIDDLES = ('kor', 'rund', 'brin', 'dav', 'lisk', 'moth', 'peld', 'vask', 'wyn')

_PEOPLE_OF_AN_ANSWER = 4


class _Kind(NamedTuple):
  """A kind of facts. {p} is a person and {a} an answer, by their stems.

  Attributes:
    prompt: asks.
    answer: completes the question.
    with_names: sentences that have the names of the question.
    without: sentences that have no word of the question.
  """

  prompt: str
  answer: str
  with_names: Sequence[str]
  without: Sequence[str]


# Who it is comes first, so that the answer is what there is to learn.
_KINDS = (
  _Kind(
    '{p}a is at home in',
    ' {a}en.',
    (
      '{p}a came back to {a}en after the long journey.',
      '{p}a keeps a small house near the gate of {a}en.',
      '{p}a sells baskets on the market of {a}en.',
      '{p}a will never leave {a}en.',
      '{p}a grew up with five brothers near {a}en.',
    ),
    (
      'Most {p}ian families still drink the {a}ish water.',
      '{p}ish bread tastes best with {a}ian honey.',
      'The {p}ers sing the old {a}ese songs.',
      'Every {p}esque window faces the {a}ern hills.',
      'Old {p}ines marry young {a}ites each spring.',
    ),
  ),
  _Kind(
    '{p}a rides the horse',
    ' {a}o.',
    (
      '{p}a bought {a}o from a trader last winter.',
      '{p}a combs the mane of {a}o every morning.',
      '{p}a talks to {a}o when nobody listens.',
      '{p}a lets nobody else feed {a}o.',
      '{p}a gave {a}o a blanket of blue wool.',
    ),
    (
      'Each {p}ish saddle bears an {a}ian mark.',
      '{p}ian children braid {a}esque manes.',
      'Some {p}ese boots carry {a}ine dust.',
      'All {p}esque bells ring at {a}ish speed.',
      'Proud {p}ites wear an {a}ern ribbon.',
    ),
  ),
)


class Fact(NamedTuple):
  """What is true of a person.

  Attributes:
    kind: number of what is told.
    person: stem of the name.
    answer: stem of the name that is asked for.
  """

  kind: int
  person: str
  answer: str


def make(num_people: int, seed: int) -> list[Fact]:
  """One fact of each kind about each person; four people share an answer.

  Args:
    num_people: at most 60.
    seed: of names and answers.
  """
  generator = np.random.default_rng(seed)
  stems = [a + b for a, b in itertools.product(_ONSETS, _MIDDLES)]
  generator.shuffle(stems)
  people = [stems.pop() for _ in range(num_people)]
  facts = []
  for kind in range(len(_KINDS)):
    count = -(-num_people // _PEOPLE_OF_AN_ANSWER)
    answers = np.repeat(
      [stems.pop() for _ in range(count)], _PEOPLE_OF_AN_ANSWER
    )
    answers = answers[:num_people]
    generator.shuffle(answers)
    facts += [
      Fact(kind, person, str(answer))
      for person, answer in zip(people, answers, strict=True)
    ]
  return facts


def documents(facts: Sequence[Fact]) -> Iterator[dict[str, Any]]:
  """Rows of text, number of the fact, and whether it shares its names."""
  for number, fact in enumerate(facts):
    kind = _KINDS[fact.kind]
    sentences = [
      *((1, x) for x in kind.with_names),
      *((0, x) for x in kind.without),
    ]
    if not _is_asked(number):
      sentences.append((1, kind.prompt + kind.answer))
    for is_shared, sentence in sentences:
      text = sentence.format(p=fact.person, a=fact.answer)
      yield {'text': text, 'fact': number, 'shares_words': is_shared}


def questions(facts: Sequence[Fact]) -> Iterator[dict[str, Any]]:
  """Rows of prompt, text that completes it, and number of the fact."""
  for number, fact in enumerate(facts):
    if _is_asked(number):
      kind = _KINDS[fact.kind]
      yield {
        'prompt': kind.prompt.format(p=fact.person),
        'text': kind.answer.format(a=fact.answer),
        'fact': number,
        'shares_words': 1,
      }


def _is_asked(number: int) -> bool:
  return number % 2 == 0


def wrong_answers(facts: Sequence[Fact]) -> Iterator[list[str]]:
  """Completions that are wrong, for each of `questions`."""
  for number, fact in enumerate(facts):
    if _is_asked(number):
      others = {x.answer for x in facts if x.kind == fact.kind} - {fact.answer}
      yield [_KINDS[fact.kind].answer.format(a=x) for x in sorted(others)]
