"""A long-lived process that moves the databases of one Django project on a coordinator's word."""
