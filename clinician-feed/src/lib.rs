//! Opens what consent allows inside a hospital: live page and FHIR API.
