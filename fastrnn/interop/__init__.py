"""Models of other libraries on fastrnn. Each room imports its peer only when it is imported itself."""
