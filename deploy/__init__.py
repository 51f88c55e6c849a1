"""What carries the models of this project into other serving systems."""
