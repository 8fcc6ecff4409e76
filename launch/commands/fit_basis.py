"""`influence fit-basis`: the leading eigenpairs of the curvature, stored."""

from launch.running import basis_fit

run = basis_fit.fit_and_show
