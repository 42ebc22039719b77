"""Multi-head attention and position schemes for length-extrapolation research: see docs/architecture.md."""
