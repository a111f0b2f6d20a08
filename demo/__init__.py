"""The demonstration: a toy web that draws itself, a loopback server, and a driver that walks the whole road over them."""
