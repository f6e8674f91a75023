"""`python -m arclight serve`: trained runs behind an HTTP server, each in worker processes of its own."""
