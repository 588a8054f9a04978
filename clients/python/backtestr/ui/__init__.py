"""`backtestr ui`: the app in any browser, by a server on loopback and a tunnel that holds the keys for its pages."""
