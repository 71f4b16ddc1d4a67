//! Consent (R4 §6.2): the terms of a grant out of FHIR. Whatever a grant can't express is refused.

pub use caregate_protocol::fhir::consent::of_grant;
use caregate_protocol::fhir::consent::{
    ACTION, CATEGORY, DATA_CLASS, GRANT_VERSION, POLICY_RULE, PURPOSES, ROLE, SCOPE, STALE_BOUND,
};
use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::policy::{RelationshipId, class_bit};
use ledger_client::wallet::Terms;
use serde_json::Value;

use super::strict::{Element, Refusal};
use super::{ACT_REASON, DOMAIN, RELATIONSHIP};

/// The terms that a Consent asks for in this relationship; `stale_bound_s` where it says nothing of that.
///
/// # Errors
/// [`Refusal`] with the FHIRPath of what a grant of this relationship can't express.
pub fn terms(
    consent: &Value,
    relationship: &RelationshipId,
    grantee: &RecipientId,
    stale_bound_s: u32,
) -> Result<Terms, Refusal> {
    let consent = Element::root("Consent", consent);
    consent.only(&[
        "resourceType",
        "id",
        "meta",
        "identifier",
        "status",
        "scope",
        "category",
        "patient",
        "policyRule",
        "provision",
    ])?;
    let kind = consent.need("resourceType", "must be there")?;
    if kind.text()? != "Consent" {
        return Err(kind.refuse("must be Consent"));
    }
    if let Some(meta) = consent.child("meta")? {
        meta.only(&["versionId", "lastUpdated", "source"])?;
    }
    if consent.child("identifier")?.is_some() {
        consent.only_one("identifier", "must not be empty")?.identifier(GRANT_VERSION)?;
    }
    let status = consent.need("status", "must be there")?;
    if status.text()? != "active" {
        return Err(status.refuse("must be active: what is not, is not granted"));
    }
    consent.need("scope", "must be there")?.concept(SCOPE.0, SCOPE.1)?;
    consent.only_one("category", "must be there")?.concept(CATEGORY.0, CATEGORY.1)?;
    consent.need("policyRule", "must be there")?.concept(POLICY_RULE.0, POLICY_RULE.1)?;
    if let Some(patient) = consent.child("patient")? {
        let (value, named) = patient.identified(RELATIONSHIP)?;
        if named.parse() != Ok(*relationship) {
            return Err(value.refuse("is another relationship than the label's"));
        }
    }
    provision(&consent.need("provision", "must say what is granted")?, grantee, stale_bound_s)
}

fn provision(provision: &Element<'_>, grantee: &RecipientId, default: u32) -> Result<Terms, Refusal> {
    provision.only(&["extension", "type", "period", "actor", "action", "purpose", "class"])?;
    // Absent it is a permit under OPTIN in some readings and not in others.
    let kind = provision.need("type", "must be permit")?;
    if kind.text()? != "permit" {
        return Err(kind.refuse("must be permit: a grant denies nothing, what it does not permit is denied"));
    }
    let period = provision.need("period", "must be there: every grant ends")?;
    period.only(&["start", "end"])?;
    let from = period.need("start", "must be there")?.seconds()?;
    let end = period.need("end", "must be there: every grant ends")?;
    let until = end.seconds()?;
    if until <= from {
        return Err(end.refuse("must be after the start"));
    }
    let actor = provision.only_one("actor", "must name the recipient")?;
    actor.only(&["role", "reference"])?;
    actor.need("role", "must be there")?.concept(ROLE.0, ROLE.1)?;
    let (named, domain) = actor.need("reference", "must be there")?.identified(DOMAIN)?;
    if domain.parse() != Ok(*grantee) {
        return Err(named.refuse("is another domain than the relationship's"));
    }
    provision.only_one("action", "must be access")?.concept(ACTION.0, ACTION.1)?;
    let stale_bound_s = stale_bound(provision)?.unwrap_or(default);
    Ok(Terms { classes: classes(provision)?, purposes: purposes(provision)?, from, until, stale_bound_s })
}

fn stale_bound(provision: &Element<'_>) -> Result<Option<u32>, Refusal> {
    if provision.child("extension")?.is_none() {
        return Ok(None);
    }
    let extension = provision.only_one("extension", "must not be empty")?;
    extension.only(&["url", "valueUnsignedInt"])?;
    let url = extension.need("url", "must be there")?;
    if url.text()? != STALE_BOUND {
        return Err(url.refuse("is not an extension that a grant can express"));
    }
    let value = extension.need("valueUnsignedInt", "must be there")?;
    u32::try_from(value.number()?).map(Some).map_err(|_range| value.refuse("is too great"))
}

fn classes(provision: &Element<'_>) -> Result<u32, Refusal> {
    provision.list("class", "must be there: a grant names its classes")?.iter().try_fold(0, |mask, coding| {
        let code = coding.code(DATA_CLASS)?;
        let class = DataClass::from_name(code);
        let class = class.ok_or_else(|| coding.at_code("is no data class"))?;
        Ok(mask | class_bit(class))
    })
}

fn purposes(provision: &Element<'_>) -> Result<u32, Refusal> {
    provision.list("purpose", "must be there: a grant names its purposes")?.iter().try_fold(
        0,
        |mask, coding| {
            let code = coding.code(ACT_REASON)?;
            let purpose = PURPOSES.iter().find(|(_, known)| *known == code);
            let (purpose, _) =
                purpose.ok_or_else(|| coding.at_code("is no purpose that a grant can name"))?;
            Ok(mask | purpose.bit())
        },
    )
}

#[cfg(test)]
mod tests;
