"""Makes questions from annotations: proposes claims, checks them against the geometry, puts them into words."""
