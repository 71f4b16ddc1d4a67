//! The elements of FHIR R4 that are written here, in the order of the specification. Only what is used.

use serde::Serialize;

/// LOINC.
pub const LOINC: &str = "http://loinc.org";
/// IEEE 11073-10101.
pub const MDC: &str = "urn:iso:std:iso:11073:10101";
/// UCUM.
pub const UCUM: &str = "http://unitsofmeasure.org";
/// Categories of observations.
pub const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
/// Why there is no value.
pub const ABSENT: &str = "http://terminology.hl7.org/CodeSystem/data-absent-reason";

/// A code of a system (§2.24.0.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coding {
    /// Its URI.
    pub system: &'static str,
    /// The code.
    pub code: String,
}

/// One meaning in several systems (§2.24.0.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeableConcept {
    /// The codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub coding: Vec<Coding>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl CodeableConcept {
    /// Of one code.
    #[must_use]
    pub fn one(system: &'static str, code: &str) -> Self {
        Self { coding: vec![Coding { system, code: code.to_owned() }], text: None }
    }
}

/// An amount with its unit (§2.24.0.7).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantity {
    /// How much.
    pub value: f64,
    /// For people.
    pub unit: &'static str,
    /// [`UCUM`].
    pub system: &'static str,
    /// The unit's code.
    pub code: &'static str,
}

/// A reference (§2.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is called elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<Identifier>,
}

/// What something is called (§2.24.0.9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identifier {
    /// The name.
    pub value: String,
}

/// From and to (§2.24.0.13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Period {
    /// The first instant.
    pub start: String,
    /// The last one.
    pub end: String,
}

/// Evenly spaced samples (§2.24.0.12): value = data · factor + origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SampledData {
    /// What 0 stands for.
    pub origin: Quantity,
    /// Milliseconds between samples.
    pub period: f64,
    /// Units per step.
    pub factor: f64,
    /// Values at each point in time.
    pub dimensions: u32,
    /// Whole numbers between single spaces; `E` where there is none.
    pub data: String,
}

/// Part of an observation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// What was measured.
    pub code: CodeableConcept,
    /// How much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_quantity: Option<Quantity>,
    /// As a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_sampled_data: Option<SampledData>,
    /// Why there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_absent_reason: Option<CodeableConcept>,
}

/// About the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meta {
    /// What it claims to conform to.
    pub profile: Vec<&'static str>,
}

/// A measurement (§10.1).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// `Observation`.
    pub resource_type: &'static str,
    /// The same whenever it is asked for.
    pub id: String,
    /// Profile, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// `final`.
    pub status: &'static str,
    /// What kind.
    pub category: Vec<CodeableConcept>,
    /// What was measured.
    pub code: CodeableConcept,
    /// Whose.
    pub subject: Reference,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_date_time: Option<String>,
    /// From when to when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_period: Option<Period>,
    /// How much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_quantity: Option<Quantity>,
    /// Whether it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_boolean: Option<bool>,
    /// By which device.
    pub device: Reference,
    /// Its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub component: Vec<Component>,
}

/// The answer to a search (§2.36) for resources `R`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle<R> {
    /// `Bundle`.
    pub resource_type: &'static str,
    /// `searchset`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How many match, here and on other pages.
    pub total: usize,
    /// This page and the next.
    pub link: Vec<BundleLink>,
    /// The matches of this page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry: Vec<BundleEntry<R>>,
}

/// A page of a search.
#[derive(Debug, Serialize)]
pub struct BundleLink {
    /// `self` or `next`.
    pub relation: &'static str,
    /// Where.
    pub url: String,
}

/// A match.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleEntry<R> {
    /// Where it is; none where it is only about the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_url: Option<String>,
    /// What it is.
    pub resource: R,
    /// Why it is here.
    pub search: BundleSearch,
}

/// Why an entry is in the bundle.
#[derive(Debug, Serialize)]
pub struct BundleSearch {
    /// `match`; `outcome` for what is only about the search.
    pub mode: &'static str,
}

/// What a search for readings finds.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Match {
    /// A reading.
    Observation(Box<Observation>),
    /// About the search.
    Outcome(OperationOutcome),
}

/// What went wrong (§2.40).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationOutcome {
    /// `OperationOutcome`.
    pub resource_type: &'static str,
    /// One.
    pub issue: Vec<Issue>,
}

/// One thing that went wrong.
#[derive(Debug, Serialize)]
pub struct Issue {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// Of the value set `issue-type`.
    pub code: &'static str,
    /// For people.
    pub diagnostics: String,
}

impl OperationOutcome {
    /// Of one error.
    #[must_use]
    pub fn error(code: &'static str, diagnostics: String) -> Self {
        Self::new("error", code, diagnostics)
    }

    /// What is to be known about an answer that is given all the same.
    #[must_use]
    pub fn warning(code: &'static str, diagnostics: String) -> Self {
        Self::new("warning", code, diagnostics)
    }

    fn new(severity: &'static str, code: &'static str, diagnostics: String) -> Self {
        Self { resource_type: "OperationOutcome", issue: vec![Issue { severity, code, diagnostics }] }
    }
}
