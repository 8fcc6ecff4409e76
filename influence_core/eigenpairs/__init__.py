"""Leading eigenpairs by Arnoldi iteration: the basis and its report."""
