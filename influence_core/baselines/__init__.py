"""What Arnoldi influence is compared with: EK-FAC, solvers, signs."""
