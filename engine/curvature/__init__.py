"""The top of the Hessian, and the loss expanded about a point."""
