"""Arnoldi iteration on a symmetric operator, with thick restarts.

Builds an orthonormal basis Q of the Krylov space of H and the Hessenberg
matrix T = Q^T H Q, whose eigenpairs approximate the leading ones of H; see
`ritz`. Vectors and state are apart: vectors may be on devices, on the host or
in files, and the state is small enough to be written down after every step.

References:
  Schioppa et al., "Scaling Up Influence Functions", AAAI 2022, section 3.
  Golub and Van Loan, "Matrix Computations", 4th ed., section 10.5.
  Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue
    problems", SIAM J. Matrix Anal. Appl. 22, 2000.
"""

from collections.abc import Callable
import dataclasses

import jax
import numpy as np

from influence_core import errors
from influence_core.eigenpairs import krylov_vectors

# A float32 product carries an error of about 1e-6 of |Hq|: a new direction less
# than ten times as long is mostly noise.
BREAKDOWN_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class ArnoldiState:
  """H Q[:m]^T = Q^T hessenberg + errors, for m = num_steps vectors.

  Attributes:
    hessenberg: [m + 1, m] float64.
    rounding: [m] float64; how far rounding of stored vectors to bfloat16 puts
      column i of this relation wrong.
    num_products: operator products done, more than m after a restart.
    scale: length of the longest product seen.
    broke_down: the Krylov space became invariant: its Ritz pairs are then exact
      eigenpairs of H. There are m vectors then, else m + 1.
  """

  hessenberg: np.ndarray
  rounding: np.ndarray
  num_products: int = 0
  scale: float = 0.0
  broke_down: bool = False

  @property
  def num_steps(self) -> int:
    return self.hessenberg.shape[1]

  @property
  def num_vectors(self) -> int:
    """Stored vectors that belong to the state."""
    return self.num_steps + (not self.broke_down)


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
  """When the vectors are exchanged for fewer ones, and for which.

  Attributes:
    max_steps: steps that vectors are kept for; a state that was kept under
      another policy may have more.
    choose: hessenberg -> [num_kept, num_steps] float64, orthonormal rows that
      combine the vectors to those to go on with; fewer than max_steps.
  """

  max_steps: int
  choose: Callable[[np.ndarray], np.ndarray]


Operator = Callable[[jax.Array], jax.Array]
StateCallback = Callable[[ArnoldiState], None]


def ignore_state(state: ArnoldiState) -> None:
  """Does nothing after a step: the default."""
  del state


def start(
  vectors: krylov_vectors.KrylovVectors, initial_vector: jax.Array
) -> ArnoldiState:
  """Stores the first vector.

  Args:
    vectors: an empty store.
    initial_vector: slices, see `krylov_vectors`; need not be normalised.

  Raises:
    errors.InputError: It is zero or not finite.
  """
  _, _, norm = vectors.orthogonalise(initial_vector, np.zeros(0))
  if not (np.isfinite(norm) and norm > 0):
    raise errors.InputError(
      f'the initial vector has norm {norm}, expected a positive finite one'
    )
  vectors.append(initial_vector, norm)
  return ArnoldiState(np.zeros((1, 0)), np.zeros(0))


def iterate(
  operator: Operator,
  vectors: krylov_vectors.KrylovVectors,
  state: ArnoldiState,
  *,
  num_parameters: int,
  is_done: Callable[[ArnoldiState], bool],
  restart_policy: RestartPolicy | None = None,
  on_step: StateCallback = ignore_state,
  breakdown_tolerance: float = BREAKDOWN_TOLERANCE,
) -> ArnoldiState:
  """Runs Arnoldi iteration, one operator product a step.

  Each new vector is orthogonalised twice against all before it (classical
  Gram-Schmidt, CGS2): in float32 a single pass lets the basis collapse and
  invents eigenvalues. The first time, the coefficients are those that the
  symmetry of H gives, but for the last, so that it reads few vectors.

  Args:
    operator: symmetric linear map of slices, see `krylov_vectors`.
    vectors: the vectors of the state; new ones are appended.
    state: from `start`, or an earlier one whose vectors are there.
    num_parameters: dimension of the operator.
    is_done: asked before each step; the iteration also ends at a breakdown.
    restart_policy: bounds the number of vectors; None keeps all.
    on_step: called after each step, with the vectors of the state in place.
    breakdown_tolerance: the iteration stops when what is left of H q after
      orthogonalisation is shorter than this fraction of the longest |H q|
      seen, since the direction would be rounding noise.

  Returns:
    The last state.

  Raises:
    errors.InputError: A product is not finite.
  """
  while not state.broke_down and not is_done(state):
    if restart_policy and state.num_steps >= restart_policy.max_steps:
      state = _restart(vectors, state, restart_policy.choose(state.hessenberg))
    product = operator(vectors.vector(state.num_steps))
    # <q_i, H q_m> = <H q_i, q_m>, which is row m of what is known.
    residual, overlaps, length = vectors.orthogonalise(
      product, state.hessenberg[-1]
    )
    del product
    norm = float(np.sqrt(np.sum(overlaps**2) + length**2))
    if not np.isfinite(norm):
      raise errors.InputError(
        f'the operator product of step {state.num_products} is not finite; '
        'check that the loss is twice differentiable at every example of the '
        'sample'
      )
    scale = max(state.scale, norm)
    broke_down = (
      length <= breakdown_tolerance * scale
      or state.num_steps + 1 == num_parameters
    )
    lost = 0.0 if broke_down else length * vectors.append(residual, length)
    state = ArnoldiState(
      _extended(state.hessenberg, overlaps, 0.0 if broke_down else length),
      np.append(state.rounding, lost),
      state.num_products + 1,
      scale,
      broke_down,
    )
    on_step(state)
  return state


def _extended(
  hessenberg: np.ndarray, overlaps: np.ndarray, length: float
) -> np.ndarray:
  """One more column, and the row of the vector that it ends with."""
  size = len(hessenberg)
  larger = np.zeros((size + 1, size))
  larger[:size, :-1] = hessenberg
  larger[:size, -1] = overlaps
  larger[size, -1] = length
  return larger


def _restart(
  vectors: krylov_vectors.KrylovVectors,
  state: ArnoldiState,
  coefficients: np.ndarray,
) -> ArnoldiState:
  """Goes on with combinations of the vectors, and the last one (Wu and Simon).

  Their products with H again lie in the space of all vectors kept, but for
  residuals that are in the direction of the last one.
  """
  vectors.restart(coefficients)
  steps = state.num_steps
  square = coefficients @ state.hessenberg[:steps] @ coefficients.T
  last = state.hessenberg[steps:] @ coefficients.T
  rounding = np.sqrt(np.square(coefficients) @ np.square(state.rounding))
  return dataclasses.replace(
    state, hessenberg=np.concatenate([square, last]), rounding=rounding
  )
