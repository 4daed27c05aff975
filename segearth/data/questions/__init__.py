"""Questions made from annotations: proposed by kind, checked against the geometry, put into words."""
